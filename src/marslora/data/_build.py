"""Encode examples and write them to a folder of ragged arrays, completely or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marslora.core.errors import DataError
from marslora.core.files import publish_folder
from marslora.core.labels import IGNORED
from marslora.data._example import Example
from marslora.data._process import DecodedMedia, RowArrays, RowProcessor
from marslora.data._ragged import RaggedWriter
from marslora.data.splits import BadRow

_ROWS_AT_ONCE = 32
"""Rows that a processor encodes in one call, by convention: a few dozen make the call's overhead small."""
_VALUES_AT_ONCE = 1 << 26
"""Decoded pixels (times 3) and samples in memory at once: 64 million, 256 MB in float32."""


def build_rows_folder(
    folder: Path,
    examples: Sequence[Example],
    processor: Any,
    max_length: int | None,
    progress: Callable[[int, int], None],
) -> None:
    """Encode every example into a temporary folder, which is renamed to ``folder`` when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-{os.getpid()}-", dir=folder.parent))
    try:
        writer = _RowsWriter(RaggedWriter(temporary / "new"), max_length)
        row_processor = RowProcessor(processor)
        plan = _Plan(examples)
        done = 0
        for group in plan.iterate_groups():
            chosen = [examples[index] for index in group]
            for place, row in _encode_group(row_processor, chosen):
                writer.add(group[place], chosen[place], row)
            done += len(group)
            progress(done, len(examples))
        writer.close(plan.find_per_row_keys(row_processor))
        publish_folder(temporary / "new", folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Plan:
    """Which examples are encoded together: those whose pictures, sounds and videos have equal shapes; rows with the
    same pictures are neighbours."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples
        self._sizes: list[int] = []
        self._shows_image: list[bool] = []
        shapes: dict[tuple[Any, ...], int] = {}
        media: dict[int, int] = {}
        self._shape_N, media_N = (np.empty(len(examples), dtype=np.int64) for _ in range(2))
        for index, example in enumerate(examples):
            shape = tuple((type(medium), medium.shape) for medium in example.media)
            self._shape_N[index] = shapes.setdefault(shape, len(shapes))
            media_N[index] = media.setdefault(hash(example.media_digests), len(media))
            if len(shapes) > len(self._sizes):
                self._sizes.append(_group_size(example))
                self._shows_image.append(bool(example.images))
        self._order_N = np.lexsort((media_N, self._shape_N))

    def iterate_groups(self) -> Iterator[list[int]]:
        """Indices of the examples, a few at a time."""
        group: list[int] = []
        shape = -1
        for index in self._order_N.tolist():
            if group and (self._shape_N[index] != shape or len(group) >= self._sizes[shape]):
                yield group
                group = []
            group.append(index)
            shape = self._shape_N[index]
        if group:
            yield group

    def find_per_row_keys(self, row_processor: RowProcessor) -> tuple[str, ...]:
        """The keys whose arrays count rows; looked for only if some rows have pictures and others do not."""
        if all(self._shows_image) or not any(self._shows_image):
            return ()
        shows_N = np.array(self._shows_image)[self._shape_N]
        return row_processor.find_per_row_keys(self._examples[int(np.argmax(shows_N))])


def _group_size(example: Example) -> int:
    """How many rows like this one are decoded and encoded together: fewer for large pictures."""
    pixels = sum(width * height for width, height in (image.size for image in example.images))
    pixels += sum(video.num_pixels for video in example.videos)
    samples = sum(sound.length[0] for sound in example.sounds)
    return min(_ROWS_AT_ONCE, max(1, _VALUES_AT_ONCE // max(1, 3 * pixels + samples)))


def _encode_group(
    row_processor: RowProcessor, examples: Sequence[Example]
) -> Iterator[tuple[int, RowArrays | DataError]]:
    """(place, arrays or the reason of refusal) of every example of a group."""
    opened: dict[tuple[str, ...], DecodedMedia] = {}
    good, media = [], []
    for place, example in enumerate(examples):
        try:
            if example.media_digests not in opened:
                opened[example.media_digests] = row_processor.decode_media(example)
        except DataError as error:
            yield place, error
            continue
        good.append(place)
        media.append(opened[example.media_digests])
    if good:
        yield from _encode_opened(row_processor, examples, good, media)


def _encode_opened(
    row_processor: RowProcessor, examples: Sequence[Example], places: list[int], media: list[DecodedMedia]
) -> Iterator[tuple[int, RowArrays | DataError]]:
    try:
        yield from zip(places, row_processor.encode_rows([examples[place] for place in places], media), strict=True)
    except DataError as error:
        if len(places) == 1:
            yield places[0], error
            return
        for place, one in zip(places, media, strict=True):
            yield from _encode_opened(row_processor, examples, [place], [one])


_NO_ANSWER = "0 answer tokens are left after tokenization: the answer must hold text that the tokenizer knows"


def _explain_length(row: RowArrays, max_length: int) -> str:
    num_tokens = len(row.text["input_ids"])
    return f"the row has {num_tokens} tokens, more than `max_length` {max_length}: shorten it or raise `max_length`"


class _RowsWriter:
    """Writes rows as they come, each sequence of media once."""

    def __init__(self, writer: RaggedWriter, max_length: int | None) -> None:
        self._writer = writer
        self._max_length = max_length
        self._places: dict[bytes, int] = {}
        self._rows, self._pictures = array("q"), array("q")
        self._skipped: dict[int, BadRow] = {}
        self._notes: Counter[str] = Counter()

    def add(self, index: int, example: Example, row: RowArrays | DataError) -> None:
        """Write the arrays of a row, or note why it is refused."""
        if isinstance(row, DataError):
            self._refuse(index, example, str(row))
        elif self._max_length is not None and len(row.text["input_ids"]) > self._max_length:
            self._refuse(index, example, _explain_length(row, self._max_length))
        elif (row.text["labels"] == IGNORED).all():
            self._refuse(index, example, _NO_ANSWER)
        else:
            self._notes.update(row.notes)
            self._rows.append(index)
            self._pictures.append(self._place(example, row))
            for name, values in row.text.items():
                self._writer.add(f"texts.{name}", index, values)

    def _refuse(self, index: int, example: Example, reason: str) -> None:
        self._skipped[index] = BadRow(source=example.source, row=example.row, reason=reason)

    def _place(self, example: Example, row: RowArrays) -> int:
        if not row.pictures:
            return -1
        key = bytes.fromhex("".join(example.media_digests))
        if key not in self._places:
            self._places[key] = len(self._places)
            for name, values in row.pictures.items():
                self._writer.add(f"pictures.{name}", self._places[key], values)
        return self._places[key]

    def close(self, by_row: tuple[str, ...]) -> None:
        """Number the rows that were kept in the examples' order and finish the files."""
        rows_N, pictures_N = (np.array(values, dtype=np.int64) for values in (self._rows, self._pictures))
        order_N = np.argsort(rows_N)
        self._writer.renumber("texts", rows_N[order_N])
        meta = {
            "by_row": by_row,
            "notes": dict(self._notes.most_common()),
            "skipped": [self._skipped[index].model_dump() for index in sorted(self._skipped)],
        }
        self._writer.add("rows.rows", 0, rows_N[order_N])
        self._writer.add("rows.picture_of", 0, pictures_N[order_N])
        self._writer.close({"rows": 1, "texts": len(rows_N), "pictures": len(self._places)}, meta)
