"""Run a processor over rows, many at once where that gives the same result, and cut its output into rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from marslora.core.errors import DataError, ModelError
from marslora.data._answers import Template, find_answer_tokens, map_positions
from marslora.data._example import Example, Message

IGNORED = -100
_ABOUT_MEDIA = ("pixel_", "image_", "video_", "audio_", "input_features", "feature_")
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class RowArrays:
    """A row as the processor sees it."""

    text: Arrays
    """Arrays whose first axis is the row's tokens, ``labels`` among them."""
    pictures: Arrays
    """All others; their first axis counts pictures, patches, sounds or rows, and is joined over the rows of a batch."""


@dataclass(frozen=True)
class DecodedMedia:
    """The decoded pictures and sounds of one row."""

    images: Sequence[Image.Image] = ()
    sounds: Sequence[NDArray[np.float32]] = ()
    """Samples (T,) at the processor's own rate."""


class RowProcessor:
    """Turns examples with equally large pictures and equally long sounds into arrays."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._template = Template(processor)
        self._tokenizer = processor.tokenizer
        self._special_tokens = not self._template.starts_with_bos
        self._batches = True
        self._checked = False
        if not self._tokenizer.is_fast:
            raise ModelError(
                f"{type(self._tokenizer).__name__} does not say which characters its tokens stand for, so answers "
                "cannot be found. A tokenizer of the `tokenizers` library (tokenizer.json) is needed."
            )

    @cached_property
    def sampling_rate(self) -> int:
        """Samples a second that the processor wants. Raises `DataError` where it takes no sounds."""
        extractors = (getattr(self._processor, name, None) for name in ("feature_extractor", "audio_processor"))
        rate = next((one.sampling_rate for one in extractors if one is not None), None)
        if rate is None:
            raise DataError(f"the row has audio, and {type(self._processor).__name__} takes none")
        return int(rate)

    def decode_media(self, example: Example) -> DecodedMedia:
        """The example's pictures and sounds, decoded. Raises `DataError` where that is not possible."""
        return DecodedMedia(
            images=[image.open() for image in example.images],
            sounds=[sound.open(self.sampling_rate) for sound in example.sounds],
        )

    def rows(self, examples: Sequence[Example], media: Sequence[DecodedMedia]) -> list[RowArrays]:
        """The arrays of every example. All must have equally many pictures of the same sizes, sounds likewise.

        Raises `DataError` where the processor refuses a row.
        """
        rendered = [self._template.render(example.messages) for example in examples]
        texts = [one.text for one in rendered]
        cut = self._encode_texts(texts, media)
        short = self._tokenizer(texts, add_special_tokens=self._special_tokens, return_offsets_mapping=True)
        for index, row in enumerate(cut):
            positions = find_answer_tokens(short["offset_mapping"][index], rendered[index].answers)
            row.text["labels"] = self._labels(positions, short["input_ids"][index], row.text["input_ids"])
        return cut

    def num_text_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of a conversation as the template writes it, placeholders not expanded."""
        text = self._template.render(messages).text
        return len(self._tokenizer(text, add_special_tokens=self._special_tokens)["input_ids"])

    def by_row(self, example: Example) -> tuple[str, ...]:
        """The picture arrays that have one entry a row, however many pictures it shows; others have one a picture.

        Asked of the processor by showing it the pictures of ``example`` twice.
        """
        once = self.decode_media(example)
        messages = [{"role": "user", "content": [{"type": "image"}] * (2 * len(once.images))}]
        try:
            single = self._encode_one(self._template.render(example.messages).text, once)
            double = self._encode_one(self._template.render_text(messages), DecodedMedia([*once.images, *once.images]))
        except DataError:
            return ()
        return tuple(name for name, values in double.pictures.items() if len(values) == len(single.pictures[name]) == 1)

    def _labels(self, positions: Sequence[int], short: Sequence[int], ids_T: NDArray[Any]) -> NDArray[Any]:
        labels_T = np.full_like(ids_T, IGNORED)
        at = map_positions(positions, short, ids_T.tolist())
        if at and at[-1] + 1 < len(ids_T) and ids_T[at[-1] + 1] == self._tokenizer.eos_token_id:
            at = [*at, at[-1] + 1]  # an end that the tokenizer itself adds belongs to the answer
        labels_T[at] = ids_T[at]
        return labels_T

    def _encode_texts(self, texts: list[str], media: Sequence[DecodedMedia]) -> list[RowArrays]:
        if len(texts) == 1 or not self._batches:
            return [self._encode_one(text, own) for text, own in zip(texts, media, strict=True)]
        rows = split_rows(self._call_processor(texts, media), len(texts))
        if not self._checked:
            self._checked = True
            self._batches = rows is not None and same_arrays(rows[-1], self._encode_one(texts[-1], media[-1]))
        return rows if rows is not None and self._batches else self._encode_singly(texts, media)

    def _encode_singly(self, texts: list[str], media: Sequence[DecodedMedia]) -> list[RowArrays]:
        self._batches = False
        return self._encode_texts(texts, media)

    def _encode_one(self, text: str, media: DecodedMedia) -> RowArrays:
        rows = split_rows(self._call_processor([text], [media]), 1)
        assert rows is not None
        return rows[0]

    def _call_processor(self, texts: list[str], media: Sequence[DecodedMedia]) -> Any:
        given: dict[str, Any] = {"text_kwargs": {"padding": True, "add_special_tokens": self._special_tokens}}
        if any(own.images for own in media):
            given["images"] = [list(own.images) for own in media]
        if any(own.sounds for own in media):
            given["audio"] = [sound for own in media for sound in own.sounds]
            given["audio_kwargs"] = {"sampling_rate": self.sampling_rate}
        try:
            return self._processor(text=texts, return_tensors="pt", **given)
        except (ValueError, TypeError, IndexError, KeyError, RuntimeError) as error:
            raise DataError(f"{type(self._processor).__name__} refuses the row: {error}") from None


def split_rows(output: Any, num_rows: int) -> list[RowArrays] | None:
    """The processor's output cut into rows, padding removed; None where it cannot be cut evenly."""
    tensors = {name: value for name, value in output.items() if isinstance(value, torch.Tensor)}
    shape = tensors["input_ids"].shape
    keep = tensors.get("attention_mask", torch.ones(shape)).bool()
    rows = [RowArrays({}, {}) for _ in range(num_rows)]
    for name, tensor in tensors.items():
        if tensor.shape[:2] == shape and not name.startswith(_ABOUT_MEDIA):
            for index, row in enumerate(rows):
                row.text[name] = tensor[index][keep[index]].numpy()
        elif len(tensor) % num_rows:
            return None
        else:
            for index, piece in enumerate(tensor.reshape(num_rows, -1, *tensor.shape[1:])):
                rows[index].pictures[name] = piece.numpy()
    return rows


def same_arrays(a: RowArrays, b: RowArrays) -> bool:
    """Are two rows equal, array for array?"""
    return _same(a.text, b.text) and _same(a.pictures, b.pictures)


def _same(a: Arrays, b: Arrays) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
