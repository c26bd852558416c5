"""Data sets of the `datasets` library, saved to a folder or in memory. Pictures and sounds are not decoded here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from marslora.core.errors import DataError
from marslora.data._readers._base import AbstractSource, NumberedRows
from marslora.data._values import describe_value

ALIASES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev", "eval"), "test": ("test",)}
"""The names that data sets give to each split, in the order in which they are looked for."""
_ROWS_AT_ONCE = 32
"""Rows in memory at once: few, since a row may hold pictures of several MB."""


def is_dataset(path: Path) -> bool:
    """Whether the folder was written by `save_to_disk`."""
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


def open_saved(path: Path, role: str) -> AbstractSource:
    """The data set in a folder, or its split called ``role``."""
    try:
        values = datasets.load_from_disk(str(path))
    except Exception as error:  # of a folder that is damaged or half copied, in many ways
        raise DataError(
            f"The data set in `{path}` cannot be read ({type(error).__name__}: {error}). Save it again with "
            "`save_to_disk`, or copy the whole folder."
        ) from None
    return DatasetRows(values, role, str(path), path)


class DatasetRows(AbstractSource):
    """A list of rows, a `Dataset` or `IterableDataset`, or the split of a `DatasetDict`."""

    def __init__(self, values: Any, role: str, place: str, folder: Path) -> None:
        super().__init__(place, folder)
        self._values = _select_split(values, role, place) if isinstance(values, Mapping) else values

    def rows(self) -> NumberedRows:
        """(number from 1 on, row)."""
        tables = self.tables()
        values = self._values if tables is None else (row for batch in tables for row in batch.to_pylist())
        for number, value in enumerate(values, start=1):
            if isinstance(value, dict):
                yield number, value
            else:
                yield number, f"a row must be a dict of columns, found {describe_value(value)}"

    def num_rows(self) -> int:
        """As many as the data set has; 0 for rows without a length."""
        return len(self._values) if isinstance(self._values, Sized) else 0

    def tables(self) -> Iterator[pa.RecordBatch] | None:
        """The rows as they are stored, nothing decoded; None for a list of rows."""
        if not isinstance(self._values, datasets.Dataset | datasets.IterableDataset):
            return None
        tables = self._values.with_format("arrow").iter(_ROWS_AT_ONCE)
        return (batch for table in tables for batch in table.combine_chunks().to_batches())


def _select_split(values: Mapping[str, Any], role: str, place: str) -> Any:
    for name in ALIASES[role]:
        if name in values:
            return values[name]
    raise DataError(
        f"The data set `{place}` has no split called `{role}`; its splits are {sorted(values)}. Rename one to "
        f"{' or '.join(ALIASES[role])}, or save the split that you want to a folder of its own."
    )
