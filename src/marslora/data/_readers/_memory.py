"""Rows in memory, registered under a name so that a `DataSpec`, which is plain text, can name them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from marslora.core.data_files import MEMORY
from marslora.core.errors import DataError


@dataclass(frozen=True)
class _Registration:
    rows: Iterable[Any]
    version: int
    """How often rows were registered under this name: tells readers that they have changed."""


_registered: dict[str, _Registration] = {}
"""All rows registered in this process, by name. They stay until others are registered under the same name."""


def register(name: str, rows: Iterable[Any]) -> str:
    """Keep ``rows`` under ``name``; returns the source ``memory:NAME``. An iterator is read to its end at once."""
    version = _registered[name].version + 1 if name in _registered else 1
    _registered[name] = _Registration(list(rows) if isinstance(rows, Iterator) else rows, version)
    return MEMORY + name


def get_rows(source: str) -> Iterable[Any]:
    """The rows that ``memory:NAME`` stands for. Raises `DataError` if this process has none of that name."""
    name = source.removeprefix(MEMORY)
    if name not in _registered:
        raise DataError(
            f"No rows called `{name}` are registered in this process (registered: {sorted(_registered)}). Call "
            f"`register_rows({name!r}, rows)` first, in the process that reads them; other processes cannot see them."
        )
    return _registered[name].rows


def get_version(source: str) -> int:
    """Changes when other rows are registered under the same name; 0 if none are."""
    registration = _registered.get(source.removeprefix(MEMORY))
    return registration.version if registration else 0
