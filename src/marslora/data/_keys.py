"""Which keys of a row, a turn and a part are read: the others are refused as what they are, or counted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from marslora.core.errors import DataError
from marslora.data._values import describe_value

_PREFERENCES = re.compile(r"(^|_)(chosen|rejected)(_|$)")
"""Names of columns of preference data: better and worse answers to one question."""
_VERDICTS = ("label", "kto_tag")
"""Columns in which TRL and LLaMA-Factory say whether an answer is a good one."""
_OLD_CALLS = ("functions", "function_call")
"""What OpenAI called tools and calls of them before; chat templates have no place for these."""
_MEDIA_OF_TURNS = ("images", "image", "audios", "audio", "videos", "video")
"""Keys under which some data sets give a turn its own media."""


_HOLDS_MEDIA = re.compile(
    r"(?:image|img|picture|photo|audio|sound|video)s?"
    r"(?:_?(?P<number>\d{1,2})|_?(?:path|file|url|uri|name|filename|file_name|bytes|b64|base64|data))?",
    re.IGNORECASE,
)
"""Names of columns that hold a picture, a sound or a video."""


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
    if isinstance(value, str):
        return value in ("", "[]")
    return value is None or (isinstance(value, list | tuple | dict) and len(value) == 0)


def check_columns(row: ReadRow) -> None:
    """Raise `DataError` if a row is no conversation to learn from: preferences, or old calls of tools."""
    found = [name for name, value in row.items() if _PREFERENCES.search(str(name)) and not is_empty(value)]
    found += [name for name in _VERDICTS if isinstance(row.peek(name), bool)]
    if found:
        raise DataError(
            f"the row holds preferences ({', '.join(f'`{name}`' for name in found)}), and only answers that are to be "
            "learned are read: keep the better answer as a conversation, and remove the other"
        )
    if not is_empty(row.peek("functions")):
        raise _explain_old_calls("the row", "functions")


def check_unread(row: ReadRow, *, has_media: bool) -> None:
    """Raise `DataError` for an unread column that holds a picture, a sound or a video, if the row has no other: beside
    one, it may describe the same one again, unless it has a number."""
    for name in row.list_unread():
        match, value = _HOLDS_MEDIA.fullmatch(str(name)), row.peek(name)
        is_medium = match is not None and isinstance(value, str | bytes | Mapping | list | tuple)
        if match is not None and is_medium and (match["number"] or not has_media):
            raise DataError(
                f"the column `{name}` holds {describe_value(value)}, and pictures, sounds and videos are read from the "
                "columns `images`, `audios` and `videos`: rename it to one of these (a list, if there are several), or "
                "remove it"
            )


def _explain_old_calls(place: str, key: str) -> DataError:
    return DataError(
        f"{place} has `{key}`, an old form of calls of tools that no chat template writes: write `tools`, `tool_calls` "
        "and turns of the role `tool` instead"
    )


def check_turn(turn: Mapping[str, Any], read: tuple[str, ...], notes: list[str]) -> None:
    """Note the keys of a turn that are not read. Raises `DataError` for those without which it says something else."""
    for key, value in turn.items():
        if key in read or is_empty(value):
            continue
        if key in _OLD_CALLS:
            raise _explain_old_calls("a turn", key)
        if key in _MEDIA_OF_TURNS:
            raise DataError(
                f"a turn has `{key}` ({describe_value(value)}): name them in the row's column `images`, `audios` or "
                "`videos`, or as parts of the turn's `content`"
            )
        notes.append(f"`{key}` of a turn: not read")
