"""Examples into what a model reads: tokens, pictures, labels on the answers alone; kept on disk by content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from marslora.core.errors import DataError
from marslora.data._collate import join_pictures, pad_texts
from marslora.data._process import IGNORED, RowArrays, RowProcessor
from marslora.data._ragged import Ragged, RaggedWriter, publish, read_ragged
from marslora.data._rows import Example
from marslora.data.examples import BadRow, check_bad_share

_LAYOUT = 1
_ROWS_AT_ONCE = 32
Progress = Callable[[int, int], None]
"""Called with (rows done, rows in all)."""


@dataclass(frozen=True)
class EncodedSet:
    """Preprocessed rows. Rows that were refused are not in it: see ``rows`` and ``skipped``."""

    texts: dict[str, Ragged]
    """By key of the processor: one entry a row, its first axis the row's tokens; ``labels`` among them."""
    pictures: dict[str, Ragged]
    """By key of the processor: one entry for every different sequence of pictures."""
    picture_of: NDArray[np.int64]
    """Row -> entry of ``pictures``; -1 for a row without pictures. Rows with equal entries show the same pictures."""
    by_row: tuple[str, ...]
    """The keys of ``pictures`` whose first axis counts rows; the others' counts pictures, tiles or patches."""
    rows: NDArray[np.int64]
    """Row -> index of its example."""
    skipped: tuple[BadRow, ...]
    """Rows that were refused, and why."""
    pad_token_id: int
    digest: str
    """Changes when a row, the processor or a limit changes."""
    folder: Path
    _temporary: tempfile.TemporaryDirectory[str] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        """Tokens of every row, image tokens included."""
        return self.texts["input_ids"].lengths

    @cached_property
    def num_answer_tokens(self) -> NDArray[np.int64]:
        """Tokens of every row that the loss counts."""
        labels = self.texts["labels"]
        return np.array([np.count_nonzero(labels[row] != IGNORED) for row in range(len(self))], dtype=np.int64)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> dict[str, Tensor]:
        """The rows as keyword arguments of the model, on the CPU: texts (B, T, ...) padded on the right with
        attention 0 and label -100, pictures joined over the rows in their order."""
        length = int(self.num_tokens[indices].max())
        values = {"input_ids": self.pad_token_id, "labels": IGNORED}
        batch = {}
        for name, texts in self.texts.items():
            entries = [texts[row] for row in indices]
            if any(entry is not None for entry in entries):
                batch[name] = pad_texts(entries, length, values.get(name, 0))
        for name, pictures in self.pictures.items():
            entries = [pictures[place] if place >= 0 else None for place in self.picture_of[indices]]
            if any(entry is not None for entry in entries):
                batch[name] = join_pictures(entries, name in self.by_row)
        return batch


def encode(
    examples: Sequence[Example],
    processor: Any,
    *,
    cache_folder: str | Path | None = None,
    max_length: int | None = None,
    max_bad_share: float = 0.01,
    progress: Progress | None = None,
) -> EncodedSet:
    """Every example through the model's own processor and chat template.

    ``labels`` are the tokens of the assistant's turns, each with the token that ends it, and -100 elsewhere.
    The result lies in ``cache_folder`` (None: a folder that goes with the object), named by the content of the
    examples, the processor, its template and ``max_length``; a second call reads it, a damaged one is made again.
    Rows longer than ``max_length`` tokens and pictures that cannot be decoded are refused and listed in ``skipped``.
    Raises `DataError` where they are more than ``max_bad_share``, `ModelError` for a processor that cannot be used.
    """
    digest = _digest(examples, processor, max_length)
    temporary = tempfile.TemporaryDirectory(prefix="marslora-") if cache_folder is None else None
    folder = Path(temporary.name if temporary else str(cache_folder)) / f"rows-{digest}"
    found = _open(folder, digest, processor, temporary)
    if found is None:
        shutil.rmtree(folder, ignore_errors=True)
        _write(folder, examples, processor, max_length, progress or _silent)
        found = _open(folder, digest, processor, temporary)
    if found is None:
        raise DataError(f"The preprocessed rows in `{folder}` cannot be read back. Is the disk full?")
    if examples:
        check_bad_share(list(found.skipped), len(examples), max_bad_share, "rows")
    return found


def _silent(done: int, total: int) -> None:
    """No progress is shown."""


def _open(folder: Path, digest: str, processor: Any, temporary: Any) -> EncodedSet | None:
    try:
        lists, meta = read_ragged(folder)
    except (OSError, EOFError, ValueError, KeyError):
        return None
    tokenizer = processor.tokenizer
    pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return EncodedSet(
        texts={name.partition(".")[2]: values for name, values in lists.items() if name.startswith("texts.")},
        pictures={name.partition(".")[2]: values for name, values in lists.items() if name.startswith("pictures.")},
        picture_of=np.array(meta["picture_of"], dtype=np.int64),
        by_row=tuple(meta["by_row"]),
        rows=np.array(meta["rows"], dtype=np.int64),
        skipped=tuple(BadRow.parse(row) for row in meta["skipped"]),
        pad_token_id=pad_token_id or 0,
        digest=digest,
        folder=folder,
        _temporary=temporary,
    )


def _write(
    folder: Path, examples: Sequence[Example], processor: Any, max_length: int | None, progress: Progress
) -> None:
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


def _digest(examples: Sequence[Example], processor: Any, max_length: int | None) -> str:
    hashed = hashlib.sha256(f"{_LAYOUT} {transformers.__version__} {max_length}".encode())
    hashed.update(json.dumps(processor.to_dict(), sort_keys=True, default=str).encode())
    hashed.update(repr(processor.chat_template or processor.tokenizer.chat_template).encode())
    hashed.update(json.dumps(processor.tokenizer.init_kwargs, sort_keys=True, default=str).encode())
    hashed.update(repr(sorted(processor.tokenizer.get_vocab().items())).encode())
    for example in examples:
        hashed.update(example.digest.encode())
    return hashed.hexdigest()[:20]
