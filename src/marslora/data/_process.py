"""Run a processor over rows and cut its output into rows.

Many rows are encoded at once if that gives the same arrays as one by one; the first batch of a processor is compared
with its last row alone, and processors whose rows depend on their neighbours run row by row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from marslora.core.errors import DataError, ModelError
from marslora.core.labels import IGNORED
from marslora.core.vocabulary import read_vocabulary
from marslora.data._answers import Rendered, Template, find_answer_tokens, map_positions
from marslora.data._example import Example, Message
from marslora.data._frames import ChosenFrames, choose_frames

_ABOUT_MEDIA = ("pixel_", "image_", "video_", "audio_", "input_features", "feature_")
"""How the names of arrays about media begin: their second axis may equal the text's length by chance."""
_UNKNOWN = "characters that the tokenizer does not know: read as its unknown token"
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class RowArrays:
    """A row as the processor sees it."""

    text: Arrays
    """Arrays whose first axis is the row's tokens, ``labels`` among them."""
    pictures: Arrays
    """All others. Their first axis counts pictures, patches, sounds or rows and is joined over the rows of a batch."""
    notes: tuple[str, ...] = ()
    """What the template or the tokenizer left out of the row."""


@dataclass(frozen=True)
class DecodedMedia:
    """The decoded pictures, sounds and frames of one row."""

    images: Sequence[Image.Image] = ()
    sounds: Sequence[NDArray[np.float32]] = ()
    """Samples (T,) at the processor's own rate."""
    videos: Sequence[ChosenFrames] = ()


class RowProcessor:
    """Turns examples with equally large pictures and equally long sounds into arrays."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._template = Template(processor)
        self._tokenizer = processor.tokenizer
        self._vocabulary = read_vocabulary(processor)
        self._special_tokens = not self._template.starts_with_bos
        self._can_batch = True
        self._compared_once = False
        if not self._tokenizer.is_fast:
            raise ModelError(
                f"{type(self._tokenizer).__name__} does not tell which characters its tokens stand for, so answers "
                "cannot be located. Load the processor with a fast tokenizer (one of the `tokenizers` library, "
                "tokenizer.json)."
            )

    @cached_property
    def sampling_rate(self) -> int:
        """Samples per second that the processor expects. Raises `DataError` if it takes no sounds."""
        extractors = (getattr(self._processor, name, None) for name in ("feature_extractor", "audio_processor"))
        rate = next((extractor.sampling_rate for extractor in extractors if extractor is not None), None)
        if rate is None:
            raise DataError(
                f"the row has audio, and {type(self._processor).__name__} takes none: remove the audio, or choose a "
                "model that takes it"
            )
        return int(rate)

    @cached_property
    def _shared_arrays(self) -> list[str]:
        """The names that the processor gives to arrays of pictures and to those of videos alike."""
        parts = (getattr(self._processor, name, None) for name in ("image_processor", "video_processor"))
        images, videos = (set(getattr(part, "model_input_names", ())) for part in parts)
        return sorted(images & videos)

    def decode_media(self, example: Example) -> DecodedMedia:
        """The example's pictures and sounds, decoded, and the frames of its videos that the processor chooses.

        Raises `DataError` if one of them is damaged, or if the processor takes pictures or videos, but not both.
        """
        if example.images and example.videos and self._shared_arrays:
            raise DataError(
                f"the row has pictures and videos, and {type(self._processor).__name__} would put both into "
                f"{self._shared_arrays}, where one replaces the other: leave one of them out"
            )
        return DecodedMedia(
            images=[image.open() for image in example.images],
            sounds=[sound.open(self.sampling_rate) for sound in example.sounds],
            videos=[choose_frames(video, self._processor) for video in example.videos],
        )

    def encode_rows(self, examples: Sequence[Example], media: Sequence[DecodedMedia]) -> list[RowArrays]:
        """The arrays of every example. All must have equally many pictures of the same sizes, and likewise for sounds.

        Raises `DataError` if the processor refuses a row.
        """
        rendered = [self._template.render(example.messages) for example in examples]
        texts = [conversation.text for conversation in rendered]
        encoded = self._encode_texts(texts, media)
        short = self._call_tokenizer(texts, return_offsets_mapping=True)
        for index, row in enumerate(encoded):
            offsets = short["offset_mapping"][index]
            positions = find_answer_tokens(offsets, rendered[index].answers)
            first, last = offsets[-1]
            if first == last and not rendered[index].marked and positions[-1:] == [len(offsets) - 2]:
                positions.append(len(offsets) - 1)  # an end that the tokenizer itself adds belongs to the answer
            ids = short["input_ids"][index]
            self._check_known(row.text["input_ids"].tolist())
            row.text["labels"] = self._make_labels(positions, ids, row.text["input_ids"])
            unknown = [_UNKNOWN] if self._unknown_id in ids else []
            cut = [note for video in media[index].videos for note in video.notes]
            encoded[index] = replace(row, notes=tuple(dict.fromkeys([*rendered[index].notes, *unknown, *cut])))
        return encoded

    def encode_prompt(self, messages: Sequence[Message], media: DecodedMedia) -> dict[str, torch.Tensor]:
        """What the model reads before it answers the last of ``messages``: one row of its keyword arguments.

        Raises `DataError` if the template or the processor refuses them.
        """
        output = self._call_processor([self._template.render_text(messages, prompt=True)], [media])
        return {name: value for name, value in output.items() if isinstance(value, torch.Tensor)}

    @cached_property
    def _unknown_id(self) -> int | None:
        """The token of what the tokenizer does not know; None if it has none, or one that means something else too."""
        used = {getattr(self._tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
        unknown: int | None = self._tokenizer.unk_token_id
        return None if unknown in used else unknown

    def count_tokens(self, text: str) -> int:
        """The number of tokens of a text, placeholders not expanded. Raises `DataError` for unknown tokens."""
        ids = self._call_tokenizer([text])["input_ids"][0]
        self._check_known(ids)
        return len(ids)

    def _check_known(self, ids: Collection[int]) -> None:
        """Raise `DataError` for tokens that the model has no embedding of: its tokenizer has more than it has."""
        beyond = [] if self._vocabulary is None else self._vocabulary.find_beyond(ids)
        if self._vocabulary is not None and beyond:
            token, rows = self._tokenizer.convert_ids_to_tokens(beyond[0]), self._vocabulary.num_rows
            raise DataError(
                f"the token {token!r} has the id {beyond[0]}, and the model's embedding has {rows} rows: save "
                "the model after `model.resize_token_embeddings(len(tokenizer))`, or use its own tokenizer"
            )

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The conversation as text. Raises `DataError` if the template refuses it or leaves out its words."""
        return self._template.render(messages)

    def find_per_row_keys(self, example: Example) -> tuple[str, ...]:
        """The picture arrays with one entry per row, however many pictures it shows; others have one per picture.

        Found by encoding a row that shows the pictures of ``example`` twice.
        """
        once = self.decode_media(example)
        messages = [{"role": "user", "content": [{"type": "image"}] * (2 * len(once.images))}]
        try:
            single = self._encode_one(self._template.render(example.messages).text, once)
            double = self._encode_one(self._template.render_text(messages), DecodedMedia([*once.images, *once.images]))
        except DataError:
            return ()
        return tuple(name for name, values in double.pictures.items() if len(values) == len(single.pictures[name]) == 1)

    def _make_labels(self, positions: Sequence[int], short: Sequence[int], ids_T: NDArray[Any]) -> NDArray[Any]:
        labels_T = np.full_like(ids_T, IGNORED)
        at = map_positions(positions, short, ids_T.tolist())
        labels_T[at] = ids_T[at]
        return labels_T

    def _encode_texts(self, texts: list[str], media: Sequence[DecodedMedia]) -> list[RowArrays]:
        if len(texts) == 1 or not self._can_batch:
            return [self._encode_one(text, one) for text, one in zip(texts, media, strict=True)]
        rows = split_rows(self._call_processor(texts, media), len(texts))
        if not self._compared_once:
            self._compared_once = True
            self._can_batch = rows is not None and equal_arrays(rows[-1], self._encode_one(texts[-1], media[-1]))
        return rows if rows is not None and self._can_batch else self._encode_singly(texts, media)

    def _encode_singly(self, texts: list[str], media: Sequence[DecodedMedia]) -> list[RowArrays]:
        self._can_batch = False
        return self._encode_texts(texts, media)

    def _encode_one(self, text: str, media: DecodedMedia) -> RowArrays:
        rows = split_rows(self._call_processor([text], [media]), 1)
        assert rows is not None
        return rows[0]

    def _call_tokenizer(self, texts: list[str], **options: Any) -> Any:
        try:
            return self._tokenizer(texts, add_special_tokens=self._special_tokens, **options)
        except MemoryError:
            raise
        except Exception as error:  # tokenizers come with the model, some as code
            raise DataError(
                f"{type(self._tokenizer).__name__} cannot read the row ({error}): correct or remove it"
            ) from None

    def _call_processor(self, texts: list[str], media: Sequence[DecodedMedia]) -> Any:
        arguments: dict[str, Any] = {"text_kwargs": {"padding": True, "add_special_tokens": self._special_tokens}}
        if any(one.images for one in media):
            arguments["images"] = [list(one.images) for one in media]
        if any(one.sounds for one in media):
            arguments["audio"] = [sound for one in media for sound in one.sounds]
            arguments["audio_kwargs"] = {"sampling_rate": self.sampling_rate}
        if videos := [video for one in media for video in one.videos]:
            arguments["videos"] = [video.frames_FHWC for video in videos]
            about = [video.metadata for video in videos]
            arguments["videos_kwargs"] = {"do_sample_frames": False, "video_metadata": about}
        try:
            return self._processor(text=texts, return_tensors="pt", **arguments)
        except MemoryError:
            raise
        except Exception as error:  # processors come with the model, some as code
            raise DataError(
                f"{type(self._processor).__name__} cannot encode the row ({error}): correct or remove it"
            ) from None


def split_rows(output: Any, num_rows: int) -> list[RowArrays] | None:
    """The processor's output cut into rows, padding removed; None if it cannot be cut evenly."""
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


def equal_arrays(a: RowArrays, b: RowArrays) -> bool:
    """Whether two rows are equal, array for array."""
    return _equal_dicts(a.text, b.text) and _equal_dicts(a.pictures, b.pictures)


def _equal_dicts(a: Arrays, b: Arrays) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
