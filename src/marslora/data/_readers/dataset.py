"""Data sets of the `datasets` library, saved to a folder or in memory. Pictures and sounds are not decoded here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from marslora.core.errors import DataError
from marslora.data._readers._base import AbstractFile, Numbered

ALIASES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev", "eval"), "test": ("test",)}
_ROWS_AT_ONCE = 32


def is_dataset(path: Path) -> bool:
    """Was ``path`` written by `save_to_disk`?"""
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


def saved(path: Path, role: str) -> AbstractFile:
    """The data set in a folder, or its split called ``role``."""
    return Held(datasets.load_from_disk(str(path)), role, str(path), path)


class Held(AbstractFile):
    """A list of rows, a `Dataset` or the split of a `DatasetDict`."""

    def __init__(self, values: Any, role: str, place: str, folder: Path) -> None:
        super().__init__(place, folder)
        if isinstance(values, Mapping):
            values = _split(values, role, place)
        self._values = _undecoded(values) if isinstance(values, datasets.Dataset) else values

    def rows(self) -> Numbered:
        """(number, row)."""
        for number, value in enumerate(self._values, start=1):
            yield number, value if isinstance(value, dict) else f"must be a dict, found {type(value).__name__}"

    def num_rows(self) -> int:
        """As many as the data set has; 0 for rows without a length."""
        return len(self._values) if hasattr(self._values, "__len__") else 0

    def tables(self) -> Iterator[pa.RecordBatch] | None:
        """The rows in Arrow's form; None for a list of rows."""
        if not isinstance(self._values, datasets.Dataset):
            return None
        tables = self._values.with_format("arrow").iter(_ROWS_AT_ONCE)
        return (batch for table in tables for batch in table.combine_chunks().to_batches())


def _split(splits: Mapping[str, Any], role: str, place: str) -> Any:
    for name in ALIASES[role]:
        if name in splits:
            return splits[name]
    raise DataError(f"Data set `{place}` has no split called `{role}`; its splits are {sorted(splits)}.")


def _undecoded(values: datasets.Dataset) -> datasets.Dataset:
    return values.cast(datasets.Features({name: _plain(feature) for name, feature in values.features.items()}))


def _plain(feature: Any) -> Any:
    """The same feature with pictures and sounds left as bytes and paths."""
    if isinstance(feature, datasets.Image):
        return datasets.Image(decode=False)
    if isinstance(feature, datasets.Audio):
        return datasets.Audio(sampling_rate=feature.sampling_rate, decode=False)
    if isinstance(feature, datasets.List):
        return datasets.List(_plain(feature.feature))
    if isinstance(feature, dict):
        return {name: _plain(inner) for name, inner in feature.items()}
    return feature
