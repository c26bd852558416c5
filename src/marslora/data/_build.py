"""Encode examples and write them to a folder of ragged arrays, completely or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

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
        done = 0
        for group in _group_examples(examples):
            for index, row in _encode_group(row_processor, examples, group):
                writer.add(index, examples[index], row)
            done += len(group)
            progress(done, len(examples))
        writer.close(_find_per_row_keys(row_processor, examples))
        publish_folder(temporary / "new", folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _find_per_row_keys(row_processor: RowProcessor, examples: Sequence[Example]) -> tuple[str, ...]:
    """The keys whose arrays count rows; looked for only if some rows have pictures and others do not."""
    showing = [example for example in examples if example.images]
    return row_processor.find_per_row_keys(showing[0]) if 0 < len(showing) < len(examples) else ()


def _group_examples(examples: Sequence[Example]) -> Iterator[list[int]]:
    """Indices of examples with equally many pictures of equal sizes and sounds of equal lengths, a few at a time; rows
    with the same pictures are neighbours."""

    def shape(index: int) -> tuple[Any, ...]:
        example = examples[index]
        return (tuple(image.size for image in example.images), tuple(sound.length for sound in example.sounds))

    def sort_key(index: int) -> tuple[Any, ...]:
        return (shape(index), examples[index].media_digests, index)

    group: list[int] = []
    for index in sorted(range(len(examples)), key=sort_key):
        if group and (len(group) >= _group_size(examples[index]) or shape(index) != shape(group[0])):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def _group_size(example: Example) -> int:
    """How many rows like this one are decoded and encoded together: fewer for large pictures."""
    pixels = sum(width * height for width, height in (image.size for image in example.images))
    samples = sum(sound.length[0] for sound in example.sounds)
    return min(_ROWS_AT_ONCE, max(1, _VALUES_AT_ONCE // max(1, 3 * pixels + samples)))


def _encode_group(
    row_processor: RowProcessor, examples: Sequence[Example], group: list[int]
) -> Iterator[tuple[int, RowArrays | DataError]]:
    """(index, arrays or the reason of refusal) of every example of a group."""
    opened: dict[tuple[str, ...], DecodedMedia] = {}
    good, media = [], []
    for index in group:
        example = examples[index]
        try:
            if example.media_digests not in opened:
                opened[example.media_digests] = row_processor.decode_media(example)
        except DataError as error:
            yield index, error
            continue
        good.append(index)
        media.append(opened[example.media_digests])
    if good:
        yield from _encode_opened(row_processor, examples, good, media)


def _encode_opened(
    row_processor: RowProcessor, examples: Sequence[Example], indices: list[int], media: list[DecodedMedia]
) -> Iterator[tuple[int, RowArrays | DataError]]:
    try:
        yield from zip(indices, row_processor.encode_rows([examples[index] for index in indices], media), strict=True)
    except DataError as error:
        if len(indices) == 1:
            yield indices[0], error
            return
        for index, one in zip(indices, media, strict=True):
            yield from _encode_opened(row_processor, examples, [index], [one])


_NO_ANSWER = "0 answer tokens are left after tokenization: the answer must hold text that the tokenizer knows"


def _explain_length(row: RowArrays, max_length: int) -> str:
    num_tokens = len(row.text["input_ids"])
    return f"the row has {num_tokens} tokens, more than `max_length` {max_length}: shorten it or raise `max_length`"


class _RowsWriter:
    """Writes rows as they come, each sequence of pictures and sounds once."""

    def __init__(self, writer: RaggedWriter, max_length: int | None) -> None:
        self._writer = writer
        self._max_length = max_length
        self._places: dict[tuple[str, ...], int] = {}
        self._place_of: dict[int, int] = {}
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
            self._place_of[index] = self._place(example, row)
            for name, values in row.text.items():
                self._writer.add(f"texts.{name}", index, values)

    def _refuse(self, index: int, example: Example, reason: str) -> None:
        self._skipped[index] = BadRow(source=example.source, row=example.row, reason=reason)

    def _place(self, example: Example, row: RowArrays) -> int:
        if not row.pictures:
            return -1
        key = example.media_digests
        if key not in self._places:
            self._places[key] = len(self._places)
            for name, values in row.pictures.items():
                self._writer.add(f"pictures.{name}", self._places[key], values)
        return self._places[key]

    def close(self, by_row: tuple[str, ...]) -> None:
        """Number the rows that were kept in the examples' order and finish the files."""
        rows = sorted(self._place_of)
        self._writer.renumber("texts", {index: place for place, index in enumerate(rows)})
        meta = {
            "by_row": by_row,
            "rows": rows,
            "notes": dict(self._notes.most_common()),
            "picture_of": [self._place_of[index] for index in rows],
            "skipped": [self._skipped[index].model_dump() for index in sorted(self._skipped)],
        }
        self._writer.close({"texts": len(rows), "pictures": len(self._places)}, meta)
