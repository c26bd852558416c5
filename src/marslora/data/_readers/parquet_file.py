"""Parquet files, with pictures inside as ``{"bytes": ..., "path": ...}``."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyarrow import parquet

from marslora.core.errors import DataError
from marslora.data._readers._base import AbstractFile, NumberedRows

_ROWS_AT_ONCE = 32
"""Rows in memory at once: few, since a row may hold pictures of several MB."""


class ParquetFile(AbstractFile):
    """A Parquet file, read a few rows at a time."""

    suffixes = (".parquet",)

    def rows(self) -> NumberedRows:
        """(number from 1 on, row)."""
        number = 0
        for batch in self.tables():
            for row in batch.to_pylist():
                number += 1
                yield number, row

    def num_rows(self) -> int:
        """The number that the file's footer states."""
        return int(self._open().metadata.num_rows)

    def tables(self) -> Iterator[pa.RecordBatch]:
        """The rows in Arrow's form, a few at a time."""
        try:
            yield from self._open().iter_batches(_ROWS_AT_ONCE)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"`{self.place}` is damaged: {' '.join(str(error).split())}. Download or write it again."
            ) from None

    def _open(self) -> parquet.ParquetFile:
        try:
            return parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=1 << 20)
        except pa.ArrowInvalid as error:
            raise DataError(
                f"`{self.place}` is not a Parquet file: {error}. Download or write it again, or give it the ending of "
                "its real type."
            ) from None
