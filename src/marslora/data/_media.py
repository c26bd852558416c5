"""The pictures, sounds and videos that one row holds, assigned to its placeholders in order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from marslora.core.errors import DataError
from marslora.data._keys import ReadRow, is_empty
from marslora.data._tags import Tag, count_from_zero
from marslora.data._values import TYPES, check_keys, describe_value

KINDS: dict[str, tuple[str, ...]] = {
    "image": ("images", "image"),
    "audio": ("audios", "audio"),
    "video": ("videos", "video"),
}
"""Medium -> the columns that may hold it."""
PART_TYPES = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
    "sound": "audio",
    "image_path": "image",
    "video": "video",
    "video_url": "video",
    "input_video": "video",
}
"""``type`` of a part of a turn -> its medium."""
_PAYLOADS = (
    *("image_url", "input_image", "image", "audio_url", "input_audio", "audio", "video_url", "input_video", "video"),
    *("bytes", "path", "url", "base64", "source"),
)
"""The keys under which a part of a turn may hold its own picture, sound or video; the first that is present counts."""
_BOXES = ("<bbox>", "<ref-object>")
"""ms-swift's placeholders for boxes, which need coordinates in the model's own form."""


class RowMedia:
    """What a row holds in its columns of media, and which of it placeholders have taken so far."""

    def __init__(self, row: ReadRow) -> None:
        if row.peek("objects") and any(tag in str(row.peek("messages")) for tag in _BOXES):
            raise DataError(
                f"the text has placeholders for boxes ({' or '.join(_BOXES)}, column `objects`), which marslora does "
                "not fill in: write the coordinates into the text"
            )
        self._columns = {kind: list(_list_values(row, columns)) for kind, columns in KINDS.items()}
        self._used: dict[str, list[Any]] = {kind: [] for kind in KINDS}
        self._taken = dict.fromkeys(KINDS, 0)
        self._picked: dict[str, set[int]] = {kind: set() for kind in KINDS}
        self._turns: Any = ()
        self._first: int | None = None

    @property
    def has_any(self) -> bool:
        """Whether the row's columns hold a picture, a sound or a video, or a part did so far."""
        return any(self._columns.values()) or any(self._used.values())

    def look_at(self, turns: Any) -> None:
        """Remember the row's turns: whether their numbered placeholders begin with 0 or 1 shows in all of them."""
        self._turns = turns

    def take_tag(self, tag: Tag) -> None:
        """Assign a value of the columns to a placeholder in the text. Raises `DataError` if there is none."""
        if tag.number is None:
            self._used[tag.medium].append(self._next(tag.medium))
            return
        if self._first is None:
            self._first = 0 if count_from_zero(str(self._turns)) else 1
        self._pick(tag.medium, tag.number - self._first, tag.text)

    def take_part(self, part: Any, notes: list[str]) -> str:
        """Assign a value to a part of a turn and return its medium: what the part holds itself, else the column's value
        of its ``index``, else the column's next one. What is not read of the part is added to ``notes``.

        Raises `DataError` for a part that is neither picture, sound nor video, and if the column has no value left.
        """
        kind = part.get("type") if isinstance(part, Mapping) else None
        key = next((key for key in _PAYLOADS if part.get(key) is not None), None) if isinstance(part, Mapping) else None
        medium = PART_TYPES.get(kind or key or "") if isinstance(kind, str | None) else None
        if medium is None:
            found = f"the type {kind!r}" if isinstance(part, Mapping) else describe_value(part)
            raise DataError(
                f"a part of a turn must be text, an image, audio or a video, found {found}: remove it, or set its "
                "`type`"
            )
        rest = {name: value for name, value in part.items() if not is_empty(value)}
        check_keys(rest, medium, ("type", "index", *TYPES, *((key,) if key else ())), notes)
        if key is not None:
            self._used[medium].append({"base64": part[key]} if key == "base64" else part[key])
        elif part.get("index") is None:
            self._used[medium].append(self._next(medium))
        elif isinstance(part["index"], int) and not isinstance(part["index"], bool):
            self._pick(medium, part["index"], f"index {part['index']}")
        else:
            raise DataError(f"a part's `index` must be a whole number, found {describe_value(part['index'])}")
        return medium

    def _pick(self, kind: str, index: int, place: str) -> None:
        """Assign the column's value number ``index`` (from 0 on) to the next placeholder."""
        values = self._columns[kind]
        if not 0 <= index < len(values):
            raise DataError(
                f"the row has no {kind} for `{place}`: it has {len(values)} {_plural(kind)}; correct the number, or "
                f"name the missing {_plural(kind)} in the column `{KINDS[kind][0]}`"
            )
        self._picked[kind].add(index)
        self._used[kind].append(values[index])

    def take_rest(self) -> list[dict[str, str]]:
        """New placeholders for the columns that the text has none for; TRL puts them before the first question.

        Raises `DataError` if the text has placeholders for some of a column's values, but not for all.
        """
        parts = []
        for kind, values in self._columns.items():
            if values and not self._used[kind]:
                self._used[kind] = values
                parts += [{"type": kind}] * len(values)
            elif self._taken[kind] and self._picked[kind]:
                raise DataError(
                    f"some {kind} placeholders have numbers and some have none, so it is open which {kind} they stand "
                    "for: give all of them numbers, or none"
                )
            elif unused := len(values) - (self._taken[kind] + len(self._picked[kind])):
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
    return {"image": "images", "audio": "sounds", "video": "videos"}[kind]


def _list_values(row: ReadRow, columns: tuple[str, ...]) -> Iterator[Any]:
    for column in columns:
        value = row.get(column)
        if isinstance(value, str) and value[:1] == "[":
            value = _read_list(value)
        if isinstance(value, list | tuple):
            yield from value
        elif not is_empty(value):
            yield value


def _read_list(text: str) -> Any:
    """The values that a column holds as JSON text, as tables of plain text do; any other text as it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, list) else text
