"""Prompts: what a model reads before it answers, in the words of its processor's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from marslora.core.labels import IGNORED
from marslora.core.spec import MAX_PIXELS
from marslora.data._example import Example, to_example
from marslora.data._media_cache import MediaCache
from marslora.data._process import DecodedMedia, RowProcessor


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
