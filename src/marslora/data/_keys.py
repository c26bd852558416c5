"""Which keys of a row, a turn and a part are read: the others are refused as what they are, or counted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from marslora.core.errors import DataError
from marslora.data._values import describe_value

_PREFERENCES = re.compile(r"(^|_)(chosen|rejected)(_|$)")
"""Names of columns of preference data: better and worse answers to one question."""
_TOOLS = ("tools", "functions")
"""Columns that describe tools which the model may call."""
_CALLS = ("tool_calls", "function_call")
"""Keys of a turn in which the model calls a tool."""
_MEDIA_OF_TURNS = ("images", "image", "audios", "audio", "videos", "video")
"""Keys under which some data sets give a turn its own pictures and sounds."""


class ReadRow(dict[str, Any]):
    """A row that knows which of its columns were read."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        super().__init__(row)
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """The column's value, or ``default`` if there is none."""
        self._read.add(name)
        return super().get(name, default)

    def peek(self, name: str) -> Any:
        """The column's value or None, without counting it as read."""
        return super().get(name)

    def list_unread(self) -> Iterator[str]:
        """The columns that hold something and were not read."""
        return (name for name, value in self.items() if name not in self._read and not is_empty(value))


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: tables fill columns that a row does not have."""
    return value is None or (isinstance(value, str | list | tuple | dict) and len(value) == 0) or value == "[]"


def check_columns(row: ReadRow) -> None:
    """Raise `DataError` if a row is no conversation to learn from: preferences, or calls of tools."""
    found = [name for name, value in row.items() if _PREFERENCES.search(str(name)) and not is_empty(value)]
    if isinstance(row.peek("label"), bool):
        found.append("label")
    if found:
        raise DataError(
            f"the row holds preferences ({', '.join(f'`{name}`' for name in found)}), and only answers that are to be "
            "learned are read: keep the better answer as a conversation, and remove the other"
        )
    for name in _TOOLS:
        if not is_empty(row.peek(name)):
            raise DataError(
                f"the row has `{name}`, and calls of tools are not read: write the tools and their calls as text in "
                "the turns, and remove the column"
            )


def check_turn(turn: Mapping[str, Any], read: tuple[str, ...], notes: list[str]) -> None:
    """Note the keys of a turn that are not read. Raises `DataError` for those without which it says something else."""
    for key, value in turn.items():
        if key in read or is_empty(value):
            continue
        if key in _CALLS:
            raise DataError(
                f"a turn has `{key}` ({describe_value(value)}), and calls of tools are not read: write the call as "
                "text in its `content`, or remove the turn"
            )
        if key in _MEDIA_OF_TURNS:
            raise DataError(
                f"a turn has `{key}` ({describe_value(value)}): name pictures and sounds in the row's column `images` "
                "or `audios`, or as parts of the turn's `content`"
            )
        notes.append(f"`{key}` of a turn: not read")
