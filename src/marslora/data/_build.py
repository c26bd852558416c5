"""Process examples and write them to a folder of ragged arrays, all or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from marslora.core.errors import DataError
from marslora.data._process import IGNORED, RowArrays, RowProcessor
from marslora.data._ragged import RaggedWriter, publish
from marslora.data._rows import Example
from marslora.data.examples import BadRow

_ROWS_AT_ONCE = 32


def build(
    folder: Path,
    examples: Sequence[Example],
    processor: Any,
    max_length: int | None,
    progress: Callable[[int, int], None],
) -> None:
    """Process every example and give the finished folder its name; a writer that dies leaves nothing there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-{os.getpid()}-", dir=folder.parent))
    try:
        writer = _SetWriter(RaggedWriter(temporary / "new"), max_length)
        row_processor = RowProcessor(processor)
        done = 0
        for group in _groups(examples):
            for index, row in _process(row_processor, examples, group):
                writer.add(index, examples[index], row)
            done += len(group)
            progress(done, len(examples))
        writer.close(len(examples), _by_row(row_processor, examples))
        publish(temporary / "new", folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _by_row(row_processor: RowProcessor, examples: Sequence[Example]) -> tuple[str, ...]:
    """Asked only where rows with and without pictures meet in a batch."""
    showing = [example for example in examples if example.images]
    return row_processor.by_row(showing[0]) if 0 < len(showing) < len(examples) else ()


def _groups(examples: Sequence[Example]) -> Iterator[list[int]]:
    """Examples with equally many pictures of equal sizes, a few at a time, the same pictures beside each other."""

    def likeness(index: int) -> tuple[Any, ...]:
        images = examples[index].images
        return (tuple(image.size for image in images), tuple(image.digest for image in images), index)

    group: list[int] = []
    for index in sorted(range(len(examples)), key=likeness):
        if group and (len(group) == _ROWS_AT_ONCE or likeness(index)[0] != likeness(group[0])[0]):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def _process(
    row_processor: RowProcessor, examples: Sequence[Example], group: list[int]
) -> Iterator[tuple[int, RowArrays | DataError]]:
    """(index, arrays or the reason of refusal) of every example of a group."""
    opened: dict[str, Image.Image] = {}
    good, images = [], []
    for index in group:
        try:
            images.append([_opened(image, opened) for image in examples[index].images])
            good.append(index)
        except DataError as error:
            yield index, error
    if good:
        yield from _process_opened(row_processor, examples, good, images)


def _process_opened(
    row_processor: RowProcessor, examples: Sequence[Example], indices: list[int], images: list[list[Image.Image]]
) -> Iterator[tuple[int, RowArrays | DataError]]:
    try:
        yield from zip(indices, row_processor.rows([examples[index] for index in indices], images), strict=True)
    except DataError as error:
        if len(indices) == 1:
            yield indices[0], error
            return
        for index, own in zip(indices, images, strict=True):
            yield from _process_opened(row_processor, examples, [index], [own])


def _opened(image: Any, opened: dict[str, Image.Image]) -> Image.Image:
    if image.digest not in opened:
        opened[image.digest] = image.open()
    return opened[image.digest]


class _SetWriter:
    """Writes rows as they come, each sequence of pictures once."""

    def __init__(self, writer: RaggedWriter, max_length: int | None) -> None:
        self._writer = writer
        self._max_length = max_length
        self._places: dict[tuple[str, ...], int] = {}
        self._kept: dict[int, tuple[int, RowArrays]] = {}
        self._skipped: dict[int, BadRow] = {}

    def add(self, index: int, example: Example, row: RowArrays | DataError) -> None:
        """Take a row, or refuse it."""
        if isinstance(row, DataError):
            self._refuse(index, example, str(row))
        elif self._max_length is not None and len(row.text["input_ids"]) > self._max_length:
            self._refuse(index, example, f"{len(row.text['input_ids'])} tokens, `max_length` is {self._max_length}")
        elif (row.text["labels"] == IGNORED).all():
            self._refuse(index, example, "no answer token is left after tokenization")
        else:
            self._kept[index] = (self._place(example, row), RowArrays(row.text, {}))

    def _refuse(self, index: int, example: Example, reason: str) -> None:
        self._skipped[index] = BadRow(source=example.source, row=example.row, reason=reason)

    def _place(self, example: Example, row: RowArrays) -> int:
        if not row.pictures:
            return -1
        key = tuple(image.digest for image in example.images)
        if key not in self._places:
            self._places[key] = len(self._places)
            for name, values in row.pictures.items():
                self._writer.add(f"pictures.{name}", self._places[key], values)
        return self._places[key]

    def close(self, num_examples: int, by_row: tuple[str, ...]) -> None:
        """Write the texts in the examples' order."""
        rows = [index for index in range(num_examples) if index in self._kept]
        for place, index in enumerate(rows):
            for name, values in self._kept[index][1].text.items():
                self._writer.add(f"texts.{name}", place, values)
        meta = {
            "by_row": by_row,
            "rows": rows,
            "picture_of": [self._kept[index][0] for index in rows],
            "skipped": [self._skipped[index].model_dump() for index in sorted(self._skipped)],
        }
        self._writer.close({"texts": len(rows), "pictures": len(self._places)}, meta)
