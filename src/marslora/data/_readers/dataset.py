"""Data sets of the `datasets` library, saved to a folder or in memory. Pictures are not decoded here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets

from marslora.core.errors import DataError

_ALIASES = {"validation": ("validation", "valid", "val", "dev", "eval")}


def is_dataset(path: Path) -> bool:
    """Was ``path`` written by `save_to_disk`?"""
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


def rows(path: Path, role: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(number, row) of the folder's data set, or of its split called ``role``."""
    return in_memory(datasets.load_from_disk(str(path)), role, str(path))


def in_memory(values: Any, role: str, source: str = "") -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(number, row) of a list of rows, a `Dataset` or a `DatasetDict`."""
    if isinstance(values, Mapping):
        values = _split(values, role, source)
    if isinstance(values, datasets.Dataset):
        values = _undecoded(values)
    return _numbered(values)


def _numbered(values: Iterable[Any]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, value in enumerate(values, start=1):
        yield number, value if isinstance(value, dict) else f"must be a dict, found {type(value).__name__}"


def _split(splits: Mapping[str, Any], role: str, source: str) -> Any:
    for name in _ALIASES.get(role, (role,)):
        if name in splits:
            return splits[name]
    raise DataError(f"Data set `{source}` has no split called `{role}`; its splits are {sorted(splits)}.")


def _undecoded(values: datasets.Dataset) -> datasets.Dataset:
    return values.cast(datasets.Features({name: _plain(feature) for name, feature in values.features.items()}))


def _plain(feature: Any) -> Any:
    """The same feature with pictures left as bytes and paths."""
    if isinstance(feature, datasets.Image):
        return datasets.Image(decode=False)
    if isinstance(feature, datasets.List):
        return datasets.List(_plain(feature.feature))
    if isinstance(feature, dict):
        return {name: _plain(inner) for name, inner in feature.items()}
    return feature
