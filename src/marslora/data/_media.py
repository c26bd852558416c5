"""The pictures and sounds that one row holds, assigned to its placeholders in order."""

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
"""``type`` of a part of a turn -> its medium."""
_PAYLOADS = ("image_url", "input_image", "image", "audio_url", "input_audio", "audio", "bytes", "path", "url", "base64")
"""The keys under which a part of a turn may hold its own picture or sound; the first that is present counts."""
_BOXES = ("<bbox>", "<ref-object>")
"""ms-swift's placeholders for boxes, which need coordinates in the model's own form."""


class RowMedia:
    """What a row holds in its columns of pictures and sounds, and which of it placeholders have taken so far."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        if not (_is_empty(row.get("videos")) and _is_empty(row.get("video"))):
            raise DataError(
                f"the row has videos ({str(row.get('videos') or row.get('video'))[:40]}), and only images and audio "
                "are read: remove them, or save frames as images"
            )
        if row.get("objects") and any(tag in str(row.get("messages")) for tag in _BOXES):
            raise DataError(
                f"the text has placeholders for boxes ({' or '.join(_BOXES)}, column `objects`), which marslora does "
                "not fill in: write the coordinates into the text"
            )
        self._columns = {kind: list(_list_values(row, columns)) for kind, columns in KINDS.items()}
        self._used: dict[str, list[Any]] = {kind: [] for kind in KINDS}
        self._taken = dict.fromkeys(KINDS, 0)

    @staticmethod
    def find_medium(part_type: Any) -> str | None:
        """``image`` or ``audio`` for the ``type`` of a part of a turn; None for another type."""
        return _PARTS.get(part_type) if isinstance(part_type, str) else None

    def take(self, kind: str, part: Mapping[str, Any] | None = None) -> None:
        """Assign a value to the next placeholder: what its ``part`` holds itself, else the column's next value.

        Raises `DataError` if the column has no value left.
        """
        value = _get_payload(part) if part is not None else None
        if value is None:
            value = self._next(kind)
        self._used[kind].append(value)

    def take_rest(self) -> list[dict[str, str]]:
        """New placeholders for the columns that the text has none for; TRL puts them before the first question.

        Raises `DataError` if the text has placeholders for some of a column's values, but not for all.
        """
        parts = []
        for kind, values in self._columns.items():
            if values and not self._used[kind]:
                self._used[kind] = values
                parts += [{"type": kind}] * len(values)
            elif unused := len(values) - self._taken[kind]:
                used = len(self._used[kind])
                raise DataError(
                    f"the text has {used} {kind} placeholders, but the row has {used + unused} {_plural(kind)}: write "
                    f"one `<{kind}>` tag for each of them, or remove all tags"
                )
        return parts

    def get_taken(self, kind: str) -> list[Any]:
        """The values of the row's placeholders, in their order."""
        return self._used[kind]

    def _next(self, kind: str) -> Any:
        values, at = self._columns[kind], self._taken[kind]
        if at == len(values):
            raise DataError(
                f"the text has more {kind} placeholders than the row has {_plural(kind)} ({len(values)}): remove "
                f"`<{kind}>` tags, or name the missing {_plural(kind)} in the column `{KINDS[kind][0]}`"
            )
        self._taken[kind] += 1
        return values[at]


def _plural(kind: str) -> str:
    return {"image": "images", "audio": "sounds"}[kind]


def _list_values(row: Mapping[str, Any], columns: tuple[str, ...]) -> Iterator[Any]:
    for column in columns:
        value = row.get(column)
        if isinstance(value, list | tuple):
            yield from value
        elif not _is_empty(value):
            yield value


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple) and len(value) == 0)


def _get_payload(part: Mapping[str, Any]) -> Any:
    for key in _PAYLOADS:
        value = part.get(key)
        if value is not None:
            return {"base64": value} if key == "base64" else value
    return None
