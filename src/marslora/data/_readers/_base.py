"""The base classes of sources of rows: numbered rows, read lazily, their approximate number, and how to copy them."""

from __future__ import annotations

import gzip
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TextIO, cast

import pyarrow as pa

from marslora.core.errors import DataError

Row = dict[str, Any] | str
"""A row, or the reason why it could not be read."""
NumberedRows = Iterator[tuple[int, Row]]
"""(number, row) in the order of the file. Numbers are what a person would look for: lines, or rows from 1 on."""


class AbstractSource(ABC):
    """A file of rows, a folder that is one data set, or rows in memory."""

    def __init__(
        self, place: str, folder: Path, *, copy_name: str = "good.jsonl", registry: Mapping[str, Any] | None = None
    ) -> None:
        self.place = place
        """Its name in messages."""
        self.folder = folder
        """Where relative paths in its rows start."""
        self.copy_name = copy_name
        """What a copy of its rows must be called to be read the same way."""
        self.registry = registry
        """What a dataset_info.json must say of such a copy, without its file name; None: no such file is needed."""

    @abstractmethod
    def rows(self) -> NumberedRows:
        """(number, row), read one after the other. Raises `DataError` at a place from which nothing more can be read.

        A row that is damaged while the next ones can still be read is yielded as the reason (text).
        """

    @abstractmethod
    def num_rows(self) -> int:
        """About how many rows there are, without parsing them; 0 if that is unknown. Progress bars show it."""

    def texts(self) -> Iterator[tuple[int, bytes]]:
        """(number, the row as one line of JSON; if it was JSON, exactly as it was written)."""
        for number, row in self.rows():
            yield number, json.dumps(row, ensure_ascii=False).encode()

    def tables(self) -> Iterator[pa.RecordBatch] | None:
        """The rows in Arrow's form if they can hold bytes, which JSON cannot; None if `texts` is enough."""
        return None


def read_rows(source: AbstractSource) -> NumberedRows:
    """The source's rows. Whatever else than `DataError` reading raises (a disk, a damaged archive) becomes one."""
    number = 0
    try:
        for number, row in source.rows():
            yield number, row
    except (DataError, MemoryError):
        raise
    except Exception as error:  # readers may be anyone's, and files hold anything
        raise DataError(
            f"`{source.place}` cannot be read after row {number} ({type(error).__name__}: {error}). Download or write "
            "it again."
        ) from None


class AbstractFile(AbstractSource):
    """A file whose type is given by its ending. Relative paths in its rows start in its folder.

    A second ending ``.gz`` says that the file is compressed: `open_bytes` reads it as if it were not.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    """The endings of the files that the class reads, each with its dot: ``(".csv",)``. No two classes share one."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), path.parent)
        self.path = path
        self.is_compressed = path.suffix.lower() == ".gz"

    def open_bytes(self) -> BinaryIO:
        """The file's content, decompressed."""
        return cast(BinaryIO, gzip.open(self.path)) if self.is_compressed else self.path.open("rb")

    def open_text(self, **options: Any) -> TextIO:
        """The file's content as text, in UTF-8 unless ``options`` say otherwise."""
        return io.TextIOWrapper(self.open_bytes(), **{"encoding": "utf-8-sig", **options})


class ConvertedSource(AbstractSource):
    """Another source's rows, each converted by a function; copies keep the rows as they were before."""

    def __init__(
        self,
        source: AbstractSource,
        folder: Path,
        convert: Callable[[dict[str, Any]], Row],
        *,
        copy_name: str = "good.jsonl",
        registry: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(source.place, folder, copy_name=copy_name, registry=registry)
        self._source = source
        self._convert = convert

    def rows(self) -> NumberedRows:
        """The converted rows under their own numbers."""
        for number, row in self._source.rows():
            yield number, row if isinstance(row, str) else self._convert_row(row)

    def _convert_row(self, row: dict[str, Any]) -> Row:
        try:
            return self._convert(row)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            return f"the row cannot be converted ({type(error).__name__}: {error}): correct it or remove it"

    def num_rows(self) -> int:
        """As many as the source itself has."""
        return self._source.num_rows()

    def texts(self) -> Iterator[tuple[int, bytes]]:
        """The rows as they were before."""
        return self._source.texts()

    def tables(self) -> Iterator[pa.RecordBatch] | None:
        """The rows as they were before, if the source has Arrow's form."""
        return self._source.tables()
