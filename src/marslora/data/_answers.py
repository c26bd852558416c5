"""Find the tokens that are answers: from the text of the chat template to positions in the model's input.

Answers are first located as characters. If the template marks them with ``{% generation %}``, these marks are used.
Otherwise an answer begins where the text that asks for it ends, and ends with what the template writes after every
answer (its end tokens), never with what opens the next turn. The tokenizer's offsets convert characters to tokens, and
these are mapped to positions in the model's input, where the placeholder of a picture is expanded to many tokens.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from marslora.core.errors import DataError, ModelError
from marslora.data._left_out import find_left_out
from marslora.data._tools import check_template
from marslora.data._turns import Message

_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_CONTENTS = re.compile("think|thought|reason|tool", re.IGNORECASE)
"""Special tokens that belong into an answer."""
_STRANGERS = "\ue0a1\ue0a2\ue0a3\uf8a1"
"""Characters for private use: the first that a text lacks stands in for an answer while its place is found."""
_UNENDED = "answers without an end: the {% generation %} block of the chat template leaves the end token out"
"""The note on rows whose answers are marked in a way that does not teach the model to stop."""
_PROBE: Message = {"role": "user", "content": [{"type": "text", "text": "a"}]}
"""A question that shows how a template writes contents, and whether it begins with a token of its own."""
Span = tuple[int, int]
"""(start, end) in characters, the end excluded."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, image placeholders not yet expanded, with the characters that are answers."""

    text: str
    answers: tuple[Span, ...]
    marked: bool
    """Whether the template itself marks its answers; nothing is then added to them."""
    notes: tuple[str, ...] = ()
    """What the template left out of the conversation."""


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
        self._specials = SpecialTokens([*self._tokenizer.all_special_tokens, *self._tokenizer.get_added_vocab()])
        self._takes_parts = True
        self._takes_parts = self._probe_parts()

    def _probe_parts(self) -> bool:
        """Whether the template reads lists of parts; one made for text alone prints or refuses them."""
        with contextlib.suppress(DataError):
            return "'text'" not in self.render_text([_PROBE])
        with contextlib.suppress(DataError), self._explain_refusal():
            text = {**_PROBE, "content": "a"}
            self._processor.apply_chat_template([text], chat_template=self._template, tokenize=False)
            return False
        return True  # it refuses the probe for another reason

    @property
    def starts_with_bos(self) -> bool:
        """Whether the template writes the beginning-of-sequence token, so that the tokenizer must not add it again."""
        bos = self._tokenizer.bos_token
        if not bos:
            return False
        try:
            return self.render_text([_PROBE]).startswith(bos)
        except DataError:  # it wants more than a question
            return "bos_token" in self._template or bos in self._template

    def render_text(self, messages: Sequence[Message], prompt: bool = False) -> str:
        """The conversation's text as the template writes it; ``prompt`` opens the next answer."""
        with self._explain_refusal():
            text: str = self._processor.apply_chat_template(
                self._convert(messages),
                tools=messages[0].get("tools"),
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=prompt,
            )
        return text

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The conversation's text and its answers: as the template marks them, or each with the tokens that end it.

        If a template ends the last answer without any special token, the end-of-sequence token is added, so that the
        model learns to stop. Raises `DataError` for a template in which the answers cannot be found.
        """
        check_template(messages, self._template)
        self._check_marks(messages)
        is_marked = bool(_GENERATION.search(self._template))
        if is_marked:
            text, spans = self._render_marked(messages)
        else:
            text = self.render_text(messages)
            spans = self._find_spans(text, messages)
        text, spans = self._end(text, spans)
        learned = tuple(_select_learned(messages, spans))
        notes = find_left_out(messages, text)
        if is_marked and learned and not any(self._specials.end(text[start:end].rstrip()) for start, end in learned):
            notes = (*notes, _UNENDED)
        return Rendered(text, learned, is_marked, notes)

    @cached_property
    def _marks(self) -> re.Pattern[str] | None:
        """The special tokens that begin and end texts, and those that the template writes around turns; None if there
        are none. Thoughts and calls of tools are contents."""
        tokenizer = self._tokenizer
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        marks = special & {getattr(tokenizer, f"{name}_token", None) for name in ("bos", "eos", "pad")}
        with contextlib.suppress(DataError):
            written = self.render_text([_PROBE, {"role": "assistant", "content": _PROBE["content"]}])
            marks |= {token for token in special if token in written and not _CONTENTS.search(token)}
        found = sorted((mark for mark in marks if not mark.isalnum() and len(mark) > 2), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, found))) if found else None

    def _check_marks(self, messages: Sequence[Message]) -> None:
        """Raise `DataError` for a text that has a token with which the template itself begins or ends something."""
        if self._marks is None:
            return
        for message in messages:
            for part in message["content"]:
                if found := self._marks.search(part.get("text", "")):
                    raise DataError(
                        f"the text has `{found[0]}`, which the model's tokenizer reads as a special token of its "
                        "template: remove it, or put a space into it"
                    )

    def _end(self, text: str, spans: list[Span]) -> tuple[str, list[Span]]:
        """The text with an end-of-sequence token, if it ends in an answer without any special token (LLaVA 1.5)."""
        stripped, token = text.rstrip(), self._tokenizer.eos_token
        if not token or not spans or spans[-1][1] < len(stripped) or self._specials.end(stripped):
            return text, spans
        return stripped + token, [*spans[:-1], (spans[-1][0], len(stripped) + len(token))]

    def _render_marked(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """Answers as the template's ``{% generation %}`` blocks mark them."""
        with self._explain_refusal():
            texts, marks = render_jinja_template(
                conversations=[self._convert(messages)],
                tools=messages[0].get("tools"),
                chat_template=self._template,
                return_assistant_tokens_mask=True,
                **self._tokenizer.special_tokens_map,
            )
        return texts[0], [(start, end) for start, end in marks[0]]

    def _convert(self, messages: Sequence[Message]) -> list[Message]:
        given = [{key: value for key, value in message.items() if key != "tools"} for message in messages]
        return given if self._takes_parts else [_join_parts(message) for message in given]

    @staticmethod
    @contextlib.contextmanager
    def _explain_refusal() -> Iterator[None]:
        """Turn what a template raises (it checks roles, order and content) into a `DataError`."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:  # a template is code of the model's authors: it may raise anything
            raise DataError(f"the chat template refuses the row ({error}): change the row or the template") from None

    def _find_spans(self, text: str, messages: Sequence[Message]) -> list[Span]:
        """The answers in ``text``, each from the end of what asks for it to the end of its own end tokens."""
        indices = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        places = [self._find_content(text, messages, index) for index in indices]
        closing = text[places[-1][1] :]
        spans = []
        for index, (first, last) in zip(indices, places, strict=True):
            start = self._find_start(text, messages, index, first)
            end = max(last, len(text[: last + self._count_common(text[last:], closing)].rstrip()))
            spans.append((start, end if closing.strip() else self._include_end_of_sequence(text, end)))
        return spans

    def _include_end_of_sequence(self, text: str, end: int) -> int:
        """``end``, or the end of the end-of-sequence token behind it; a template may leave it out of the last turn."""
        token = self._tokenizer.eos_token
        if not token or token == self._tokenizer.bos_token:
            return end
        after = len(text) - len(text[end:].lstrip())
        return after + len(token) if text.startswith(token, after) else end

    def _find_content(self, text: str, messages: Sequence[Message], index: int) -> Span:
        """Where the words of answer ``index`` are: what changes if a stranger stands in their place."""
        stranger = next((one for one in _STRANGERS if one not in text), _STRANGERS[0])
        other = {key: value for key, value in messages[index].items() if key != "tool_calls"}
        other["content"] = [{"type": "text", "text": stranger}]
        changed = self.render_text([*messages[:index], other, *messages[index + 1 :]])
        if stranger not in changed:
            raise _explain_rewriting(messages[index])
        first = _count_equal(text, changed)
        last = len(text) - _count_equal(text[first:][::-1], changed[::-1])
        return first, last

    def _find_start(self, text: str, messages: Sequence[Message], index: int, first: int) -> int:
        """The end of the text that asks for answer ``index``, whose words begin at ``first``: where the model starts to
        write."""
        before = self.render_text(messages[:index], prompt=True)
        if text.startswith(before):
            return len(before)
        start = self._count_common(text, before)
        if start < self._count_common(before, self.render_text(messages[:index])):
            raise _explain_rewriting(messages[index])
        return min(first, start)

    def _count_common(self, a: str, b: str) -> int:
        """The number of characters that two texts have in common at their start, special tokens as a whole."""
        count = _count_equal(a, b)
        if count < max(len(a), len(b)):
            count = min(self._specials.cut(a, count), self._specials.cut(b, count))
        return count


class SpecialTokens:
    """The texts of a tokenizer's special and added tokens."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = {token for token in tokens if token}
        self._first = {token[0] for token in self._tokens}
        self._longest = max(map(len, self._tokens), default=0)

    def end(self, text: str) -> bool:
        """Whether the last token of ``text`` is one of them."""
        return any(text[-length:] in self._tokens for length in range(1, min(self._longest, len(text)) + 1))

    def cut(self, text: str, at: int) -> int:
        """``at``, or the beginning of the token of which ``at`` is in the middle."""
        for start in range(max(0, at - self._longest + 1), at):
            if text[start] in self._first:
                ends = range(at + 1, min(len(text), start + self._longest) + 1)
                if any(text[start:end] in self._tokens for end in ends):
                    return start
        return at


def _select_learned(messages: Sequence[Message], spans: Sequence[Span]) -> list[Span]:
    """The spans of the answers that are learned: those of turns without ``"learn": False``."""
    learn = [message.get("learn", True) for message in messages if message["role"] == "assistant"]
    if all(learn):
        return list(spans)
    if len(learn) != len(spans):
        raise DataError(
            f"the chat template marks {len(spans)} pieces of text for {len(learn)} answers, so it is unknown which of "
            "them `loss` and `prompt` exclude: put one {% generation %} block around each answer in the template"
        )
    return [span for span, wanted in zip(spans, learn, strict=True) if wanted]


def _count_equal(a: str, b: str) -> int:
    """The number of characters that two texts have in common at their start."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def _join_parts(message: Message) -> Message:
    """The message with its parts as one text, for templates that read no parts."""
    kinds = {part["type"] for part in message["content"]} - {"text"}
    if kinds:
        raise DataError(
            f"the chat template reads text alone, and a turn has {' and '.join(sorted(kinds))}: take the template of a "
            "model that sees and hears, or remove them from the row"
        )
    return {**message, "content": "".join(part["text"] for part in message["content"])}


def _explain_rewriting(message: Message) -> DataError:
    answer = "".join(part.get("text", "") for part in message["content"]).strip()
    return DataError(
        f"the chat template rewrites earlier turns, so the answer `{answer[:40]}` cannot be located in its text: mark "
        "answers in the template with {% generation %} ... {% endgeneration %}"
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
            "processor must not change the text around its placeholders; choose another one"
        )
    return [places[position] for position in positions]
