"""Parquet files, pictures inside as ``{"bytes": ..., "path": ...}``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from marslora.core.errors import DataError
from marslora.data._readers._base import AbstractFile, NumberedRows

_ROWS_AT_ONCE = 32


class ParquetFile(AbstractFile):
    """A Parquet file, read a few rows at a time."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), path.parent)
        self._path = path

    def rows(self) -> NumberedRows:
        """(number, row)."""
        number = 0
        for batch in self.tables():
            for row in batch.to_pylist():
                number += 1
                yield number, row

    def num_rows(self) -> int:
        """As the file's footer says."""
        return int(self._file().metadata.num_rows)

    def tables(self) -> Iterator[pa.RecordBatch]:
        """The rows in Arrow's form."""
        try:
            yield from self._file().iter_batches(_ROWS_AT_ONCE)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"`{self.place}` is damaged: {' '.join(str(error).split())}.") from None

    def _file(self) -> parquet.ParquetFile:
        try:
            return parquet.ParquetFile(self._path, pre_buffer=False, buffer_size=1 << 20)
        except pa.ArrowInvalid as error:
            raise DataError(f"`{self.place}` is no Parquet file: {error}.") from None
