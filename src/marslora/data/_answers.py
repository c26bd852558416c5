"""Which tokens are answers: from the chat template's text to positions in what the model reads.

Answers are found as characters first. A template that marks them with ``{% generation %}`` is taken at its word; for
any other, an answer is what an assistant's turn adds to the text before it. Characters become tokens by the tokenizer's
offsets, and these become positions among the model's tokens, where a picture's placeholder is expanded to many.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from marslora.core.errors import DataError, ModelError
from marslora.data._example import Message

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
Span = tuple[int, int]
"""(start, end) in characters, the end excluded."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, image placeholders not yet expanded, with the characters that are answers."""

    text: str
    answers: tuple[Span, ...]


class Template:
    """A processor's chat template."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._tokenizer = processor.tokenizer
        template = processor.chat_template or processor.tokenizer.chat_template
        self._template = template["default"] if isinstance(template, dict) else template
        if not self._template:
            raise ModelError(
                f"{type(processor).__name__} has no chat template (found {template!r}). Put a chat_template.jinja into "
                "the model's folder, or set `processor.chat_template`."
            )
        specials = {*self._tokenizer.all_special_tokens, *self._tokenizer.get_added_vocab()}
        self._specials = tuple(sorted(specials, key=len, reverse=True))

    @property
    def starts_with_bos(self) -> bool:
        """Whether the template writes the token that begins a text; the tokenizer must then not add it again."""
        bos = self._tokenizer.bos_token
        return bool(bos) and self.render_text(
            [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
        ).startswith(bos)

    def render_text(self, messages: Sequence[Message], prompt: bool = False) -> str:
        """The conversation's text as the template writes it; ``prompt`` opens the next answer."""
        text: str = self._processor.apply_chat_template(
            list(messages), chat_template=self._template, tokenize=False, add_generation_prompt=prompt
        )
        return text

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The conversation's text and its answers, each with the token that ends the turn.

        If a template ends the last answer without any special token, the end-of-sequence token is added, so that the
        model learns to stop. Raises `DataError` for a template in which the answers cannot be found.
        """
        text, spans = (
            self._render_marked(messages) if _GENERATION.search(self._template) else self._render_compared(messages)
        )
        stripped = text.rstrip()
        if not stripped.endswith(self._specials) and self._tokenizer.eos_token:
            start, _ = spans[-1]
            text = stripped + self._tokenizer.eos_token
            spans[-1] = (start, len(text))
        return Rendered(text, tuple(_select_learned(messages, spans)))

    def _render_marked(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """Answers as the template's ``{% generation %}`` blocks mark them."""
        texts, marks = render_jinja_template(
            conversations=[list(messages)],
            chat_template=self._template,
            return_assistant_tokens_mask=True,
            **self._tokenizer.special_tokens_map,
        )
        text = texts[0]
        return text, [(start, self._include_end_token(text, end)) for start, end in marks[0]]

    def _include_end_token(self, text: str, end: int) -> int:
        """The end of an answer including the special token that closes it, if there is one."""
        return next((end + len(token) for token in self._specials if text.startswith(token, end)), end)

    def _render_compared(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """Answers as what each assistant's turn adds to the text before it, generation prompt included."""
        text = self.render_text(messages)
        spans = []
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                before = self.render_text(messages[:index], prompt=True)
                after = self.render_text(messages[: index + 1]) if index + 1 < len(messages) else text
                start = _count_common(before, text)
                end = _count_common(after, text)
                end = start + len(text[start:end].rstrip())
                _check_answer(message, text[start:end])
                spans.append((start, end))
        return text, spans


def _select_learned(messages: Sequence[Message], spans: Sequence[Span]) -> list[Span]:
    """The spans of the answers that are learned: those of turns without ``"learn": False``."""
    learn = [message.get("learn", True) for message in messages if message["role"] == "assistant"]
    if all(learn):
        return list(spans)
    if len(learn) != len(spans):
        raise DataError(
            f"the chat template marks {len(spans)} pieces of text for {len(learn)} answers, so `loss` and `prompt` "
            "cannot be followed: put one {% generation %} block around each answer in the template"
        )
    return [span for span, wanted in zip(spans, learn, strict=True) if wanted]


def _count_common(a: str, b: str) -> int:
    """The number of characters that two texts have in common at their start."""
    differing = (at for at, (in_a, in_b) in enumerate(zip(a, b, strict=False)) if in_a != in_b)
    return next(differing, min(len(a), len(b)))


def _check_answer(message: Message, text: str) -> None:
    answer = "".join(part.get("text", "") for part in message["content"]).strip()
    if answer not in text:
        raise DataError(
            f"the chat template rewrites earlier turns, so the answer `{answer[:40]}` cannot be told from the rest: "
            "mark answers in the template with {% generation %} ... {% endgeneration %}"
        )


def find_answer_tokens(offsets: Sequence[Span], answers: Sequence[Span]) -> list[int]:
    """Positions of the tokens that overlap an answer; ``offsets`` are the tokens' characters."""
    positions = []
    for start, end in answers:
        positions += [at for at, (first, last) in enumerate(offsets) if first < end and last > start and last > first]
    return positions


def map_positions(positions: Sequence[int], short: Sequence[int], full: Sequence[int]) -> list[int]:
    """The positions in ``full`` of the tokens at ``positions`` of ``short``; ``full`` is ``short`` with its
    placeholders expanded.

    What follows the last placeholder is the same in both, so it is counted from the end; only answers before it are
    searched for by alignment. Raises `DataError` if a token is not found.
    """
    same_end = 0
    while same_end < min(len(short), len(full)) and short[-1 - same_end] == full[-1 - same_end]:
        same_end += 1
    shift = len(full) - len(short)
    if all(position >= len(short) - same_end for position in positions):
        return [position + shift for position in positions]
    blocks = SequenceMatcher(None, short, full, autojunk=False).get_matching_blocks()
    places = {block.a + step: block.b + step for block in blocks for step in range(block.size)}
    places |= {position: position + shift for position in range(len(short) - same_end, len(short))}
    if missing := [position for position in positions if position not in places]:
        raise DataError(
            f"{len(missing)} of {len(positions)} answer tokens cannot be found among the processor's tokens: the "
            "processor must keep the text around its placeholders as it is"
        )
    return [places[position] for position in positions]
