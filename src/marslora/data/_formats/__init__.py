"""Row formats: the columns that people give their conversations. A format is one file in this folder.

The file's name is the format's name. It defines

``COLUMNS``
    The columns that a row must have to be read by this format; ``a|b`` stands for either of two.
``PRECEDENCE``
    A number. Formats are tried from the lowest to the highest, and the first whose columns a row has is used. Those of
    marslora are 10, 20, ... 50; take 5 to come before all of them, 60 to come after.
``read_turns(row)``
    Returns the conversation as turns ``{"role": ..., "content": ...}``, roles and contents as `_example` reads them
    (``<image>`` tags, parts, or no placeholder at all). Raises `DataError` with the reason if a row cannot be used.

Nothing else has to be edited: the folder is the registry.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol, cast

from marslora.core.errors import DataError
from marslora.data._registry import import_modules

Turn = dict[str, Any]
"""One turn of a conversation: ``{"role": "user", "content": "What is this?"}``."""


class RowFormat(Protocol):
    """What a module in this folder defines."""

    COLUMNS: tuple[str, ...]
    PRECEDENCE: int

    def read_turns(self, row: dict[str, Any]) -> list[Turn]:
        """The conversation of one row."""


def list_formats() -> tuple[RowFormat, ...]:
    """Every row format, in the order in which they are tried."""
    return _import_formats(tuple(__path__))


def read_turns(row: dict[str, Any]) -> list[Turn]:
    """The turns of a row, read by the first format whose columns it has. Raises `DataError` if it fits no format."""
    formats = list_formats()
    for row_format in formats:
        if all(any(dict.get(row, name) is not None for name in column.split("|")) for column in row_format.COLUMNS):
            return row_format.read_turns(row)
    known = " or ".join("+".join(row_format.COLUMNS) for row_format in formats)
    raise DataError(
        f"the row must have the columns {known}, found {sorted(map(str, row))}: rename its columns to one of these"
    )


@lru_cache(maxsize=8)
def _import_formats(folders: tuple[str, ...]) -> tuple[RowFormat, ...]:
    modules = [cast(RowFormat, module) for module in import_modules(__name__, folders)]
    return tuple(sorted(modules, key=lambda row_format: row_format.PRECEDENCE))
