"""What every kind of file offers: numbered rows, read lazily; about how many; and how good ones are copied."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

Row = dict[str, Any] | str
"""A row, or the reason why it could not be read."""
NumberedRows = Iterator[tuple[int, Row]]


class AbstractFile(ABC):
    """A file of rows, a folder that is one data set, or rows in memory."""

    def __init__(self, place: str, folder: Path) -> None:
        self.place = place
        """Its name in messages."""
        self.folder = folder
        """Where relative paths in its rows start."""
        self.copy_name = "good.jsonl"
        """What a copy of its rows must be called to be read the same way."""
        self.registry: dict[str, Any] | None = None
        """What a dataset_info.json must say of such a copy, without its file name; None: nothing."""

    @abstractmethod
    def rows(self) -> NumberedRows:
        """(number, row), read as they are asked for. Raises `DataError` where nothing more can be read."""

    @abstractmethod
    def num_rows(self) -> int:
        """About how many rows there are, found without reading them."""

    def texts(self) -> Iterator[tuple[int, bytes]]:
        """(number, the row as one line of JSON, as it was written where it was JSON)."""
        for number, row in self.rows():
            yield number, json.dumps(row, ensure_ascii=False).encode()

    def tables(self) -> Iterator[pa.RecordBatch] | None:
        """The rows in Arrow's form, where they hold bytes and so have no JSON; None elsewhere."""
        return None


class ConvertedFile(AbstractFile):
    """Another file's rows, each changed by a function."""

    def __init__(self, file: AbstractFile, folder: Path, change: Callable[[dict[str, Any]], Row]) -> None:
        super().__init__(file.place, folder)
        self._file = file
        self._change = change

    def rows(self) -> NumberedRows:
        """The changed rows under their own numbers."""
        for number, row in self._file.rows():
            yield number, row if isinstance(row, str) else self._change(row)

    def num_rows(self) -> int:
        """As many as the file has."""
        return self._file.num_rows()

    def texts(self) -> Iterator[tuple[int, bytes]]:
        """The rows as they were before."""
        return self._file.texts()

    def tables(self) -> Iterator[pa.RecordBatch] | None:
        """The rows as they were before."""
        return self._file.tables()
