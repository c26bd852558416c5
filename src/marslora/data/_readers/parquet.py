"""Parquet files, pictures inside as ``{"bytes": ..., "path": ...}``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from marslora.core.errors import DataError

_BATCH = 256


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(number, row) of one file."""
    return shards([path])


def shards(paths: Iterable[Path]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(number, row) of several files that are one data set; numbers go on over the files."""
    number = 0
    for path in paths:
        try:
            file = parquet.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise DataError(f"`{path}` is no Parquet file: {error}.") from None
        for batch in file.iter_batches(_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield number, row
