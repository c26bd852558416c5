"""Prompts: what a model reads before it answers, in the words of its processor's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from marslora.core.labels import IGNORED
from marslora.core.spec import MAX_PIXELS
from marslora.data._example import Example, to_example
from marslora.data._media_cache import MediaCache
from marslora.data._process import DecodedMedia, RowProcessor
from marslora.data.encode import EncodedRows


class Prompt(NamedTuple):
    """What a row holds before one of its answers, and that answer."""

    row: int
    end: int
    """The row's tokens before the answer."""
    answer: tuple[int, ...]
    """The tokens that the loss counts, the end of the answer among them."""


def list_prompts(rows: EncodedRows, examples: Sequence[Example]) -> list[Prompt]:
    """The prompts of all answers that are learned; ``examples`` are those that were encoded, refused ones included.

    Earlier turns of a row stand in it as they were written. Answers before a picture or a sound of their row are left
    out, since encoded pictures belong to the whole row.
    """
    prompts = []
    for row in range(len(rows)):
        labels_T: Any = rows.texts["labels"][row]
        spans = _find_spans(labels_T)
        for index, (start, end) in enumerate(spans):
            if _follows_media(examples[rows.rows[row]], index, len(spans)):
                prompts.append(Prompt(row, start, tuple(labels_T[start:end].tolist())))
    return prompts


def _find_spans(labels_T: Any) -> list[tuple[int, int]]:
    """(start, end) of every run of labels."""
    is_label_T = np.concatenate([[False], labels_T != IGNORED, [False]])
    edges = np.flatnonzero(np.diff(is_label_T.astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _follows_media(example: Example, index: int, num_spans: int) -> bool:
    """Whether all pictures and sounds stand before a span's answer; of spans that are no turns, the last."""
    learned = [
        place
        for place, message in enumerate(example.messages)
        if message["role"] == "assistant" and message.get("learn", True)
    ]
    if len(learned) != num_spans and index < num_spans - 1:
        return False
    place = learned[index] if len(learned) == num_spans else learned[-1]
    after = (part for message in example.messages[place:] for part in message.get("content", ()))
    return all(part["type"] == "text" for part in after)


def encode_question(
    processor: Any, question: str, images: Sequence[Any] = (), sounds: Sequence[Any] = (), max_pixels: int = MAX_PIXELS
) -> dict[str, Tensor]:
    """A question with its pictures and sounds as keyword arguments of the model: one row, on the CPU.

    Pictures and sounds are what a row may hold: paths, bytes, PIL images. ``<image>`` and ``<audio>`` in the question
    say where they stand; otherwise they come first. Raises `DataError` for what cannot be read or encoded.
    """
    example = _ask(question, images, sounds, max_pixels)
    rows = RowProcessor(processor)
    return rows.encode_prompt(example.messages[:-1], rows.decode_media(example))


def find_end_tokens(processor: Any) -> tuple[int, ...]:
    """The tokens that end an answer: what the template writes after one, and the tokenizer's end of sequence."""
    tokenizer = processor.tokenizer
    (row,) = RowProcessor(processor).encode_rows([_ask("a")], [DecodedMedia()])
    labels_T = row.text["labels"]
    answer = labels_T[labels_T != IGNORED].tolist()
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    last = next((token for token in reversed(answer) if tokenizer.decode([token]).strip()), None)
    found = ([last] if last in special else []) + [tokenizer.eos_token_id]
    return tuple(dict.fromkeys(token for token in found if token is not None))


def _ask(
    question: str, images: Sequence[Any] = (), sounds: Sequence[Any] = (), max_pixels: int = MAX_PIXELS
) -> Example:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "-"}]
    row = {"messages": turns, "images": list(images), "audios": list(sounds)}
    return to_example(row, MediaCache(Path(), max_pixels=max_pixels), "question", 1)
