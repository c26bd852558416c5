"""The pictures and sounds of one row, handed to its placeholders in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from marslora.core.errors import DataError

KINDS: dict[str, tuple[str, ...]] = {"image": ("images", "image"), "audio": ("audios", "audio")}
"""Medium -> the columns that may hold it."""
_PARTS = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
}
"""What a part of a turn calls itself -> its medium."""
_PAYLOADS = ("image_url", "input_image", "image", "audio_url", "input_audio", "audio", "bytes", "path", "url", "base64")
_BOXES = ("<bbox>", "<ref-object>")


class RowMedia:
    """What a row holds in its columns of pictures and sounds, and how far it has been handed out."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        if not (_is_empty(row.get("videos")) and _is_empty(row.get("video"))):
            raise DataError("the row has videos, which are not read: only images and audio")
        if row.get("objects") and any(tag in str(row.get("messages")) for tag in _BOXES):
            raise DataError("the text has boxes (`objects`), which are not read: write their numbers into the text")
        self._columns = {kind: list(_values(row, columns)) for kind, columns in KINDS.items()}
        self._used: dict[str, list[Any]] = {kind: [] for kind in KINDS}
        self._taken = dict.fromkeys(KINDS, 0)

    @staticmethod
    def kind_of(part: Any) -> str | None:
        """The medium of a part that calls itself ``part``; None for another one."""
        return _PARTS.get(part) if isinstance(part, str) else None

    def take(self, kind: str, part: Mapping[str, Any] | None = None) -> None:
        """A placeholder stands here: it takes what its ``part`` holds itself, else the column's next value."""
        value = _payload(part) if part is not None else None
        if value is None:
            value = self._next(kind)
        self._used[kind].append(value)

    def left_over(self) -> list[dict[str, str]]:
        """Placeholders for columns that no placeholder named: they stand before the first question, as TRL puts them.

        Raises `DataError` where the text names some of a column's values, but not all.
        """
        parts = []
        for kind, values in self._columns.items():
            if values and not self._used[kind]:
                self._used[kind] = values
                parts += [{"type": kind}] * len(values)
            elif unused := len(values) - self._taken[kind]:
                used = len(self._used[kind])
                raise DataError(f"the text has {used} {kind} placeholders and the row {used + unused} {_plural(kind)}")
        return parts

    def used(self, kind: str) -> list[Any]:
        """What the row's placeholders stand for, in their order."""
        return self._used[kind]

    def _next(self, kind: str) -> Any:
        values, at = self._columns[kind], self._taken[kind]
        if at == len(values):
            raise DataError(f"the text has more {kind} placeholders than the row has {_plural(kind)} ({len(values)})")
        self._taken[kind] += 1
        return values[at]


def _plural(kind: str) -> str:
    return {"image": "images", "audio": "sounds"}[kind]


def _values(row: Mapping[str, Any], columns: tuple[str, ...]) -> Iterator[Any]:
    for column in columns:
        value = row.get(column)
        if isinstance(value, list | tuple):
            yield from value
        elif not _is_empty(value):
            yield value


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple) and len(value) == 0)


def _payload(part: Mapping[str, Any]) -> Any:
    for key in _PAYLOADS:
        value = part.get(key)
        if value is not None:
            return {"base64": value} if key == "base64" else value
    return None
