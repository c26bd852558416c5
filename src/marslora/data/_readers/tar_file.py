"""Tar archives in the layout of WebDataset: neighbouring files with the same name up to its first dot are one row."""

from __future__ import annotations

import base64
import itertools
import json
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from marslora.core.errors import DataError
from marslora.data._readers._base import AbstractFile, NumberedRows, Row
from marslora.data._readers._media_folder import find_kind
from marslora.data._values import describe_value

_HOLDERS = frozenset(
    (
        *("image", "images", "image_url", "input_image", "audio", "audios", "audio_url", "input_audio", "sound"),
        *("video", "videos", "video_url", "input_video", "path", "url"),
    )
)
"""Keys of rows, parts and objects under which a text is the name of a file."""
_TEXTS = (".txt", ".text", ".caption", ".transcript")
Member = tuple[str, bytes]
"""(name in the archive, content)."""


class TarFile(AbstractFile):
    """An archive, also a compressed one, read once from its beginning to its end.

    ``NAME.json`` holds a row, ``NAME.COLUMN.json`` and ``NAME.COLUMN.txt`` one column of it, ``NAME.txt`` the text
    that belongs to its picture. Pictures, sounds and videos are those that the row names by their names in the
    archive; if it names none, they follow each other in the columns ``images``, ``audios`` and ``videos``.
    """

    suffixes = (".tar", ".tgz")

    def rows(self) -> NumberedRows:
        """(number from 1 on, row)."""
        samples = itertools.groupby(self._members(), key=lambda member: _split_name(member[0])[0])
        for number, (_, members) in enumerate(samples, start=1):
            yield number, _read_sample(list(members))

    def num_rows(self) -> int:
        """0 (unknown): only reading the whole archive tells."""
        return 0

    def texts(self) -> Iterator[tuple[int, bytes]]:
        """(number, the row as one line of JSON, its media as data URLs)."""
        for number, row in self.rows():
            yield number, json.dumps(_write_media(row), ensure_ascii=False).encode()

    def _members(self) -> Iterator[Member]:
        number = 0
        try:
            with self.open_bytes() as file, tarfile.open(fileobj=file, mode="r|*") as archive:
                for member in archive:
                    if member.isfile() and not PurePosixPath(member.name).name.startswith("."):
                        content = archive.extractfile(member)
                        assert content is not None
                        yield member.name, content.read()
                        number += 1
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(
                f"`{self.place}` is damaged after {number} files ({error}). Download or write it again."
            ) from None


def _split_name(name: str) -> tuple[str, str]:
    """(the name of the sample, the endings that say what the file is)."""
    path = PurePosixPath(name)
    first, _, endings = path.name.partition(".")
    return str(path.with_name(first)), endings


def _read_sample(members: list[Member]) -> Row:
    row: dict[str, Any] = {}
    media: dict[str, bytes] = {}
    for name, content in members:
        column, _, ending = _split_name(name)[1].rpartition(".")
        try:
            if ending.lower() == "json":
                value = json.loads(content)
                if not column and not isinstance(value, dict):
                    return f'`{name}` must hold a JSON object such as {{"messages": [...]}}, found {str(value)[:40]}'
                row |= {column: value} if column else value
            elif f".{ending.lower()}" in _TEXTS:
                row[column or "text"] = content.decode()
            elif find_kind(name):
                media[name] = content
            else:
                row[f"{column}.{ending}".lstrip(".")] = f"{len(content)} bytes"
        except (ValueError, RecursionError) as error:
            return f"`{name}` cannot be read ({error}): write it again in UTF-8"
    return _place_media(row, media)


def _place_media(row: dict[str, Any], media: dict[str, bytes]) -> Row:
    """The row with its media in the places of their names, or in columns of their own if it names none."""
    used: set[str] = set()
    row = _fill_in(row, media, used)
    if used and len(used) < len(media):
        unnamed = next(name for name in media if name not in used)
        return f"the row names {len(used)} of its {len(media)} files, and not `{unnamed}`: name or remove it"
    placed: dict[str, list[dict[str, Any]]] = {}
    for name, content in media.items():
        if name not in used:
            placed.setdefault(str(find_kind(name)), []).append({"bytes": content, "path": name})
    if twice := next((column for column in placed if row.get(column)), None):
        return f"`{twice}` must name files of the archive ({', '.join(media)}), found {describe_value(row[twice])}"
    return {**row, **placed}


def _fill_in(value: Any, media: dict[str, bytes], used: set[str], *, is_name: bool = False) -> Any:
    """The value with the content of a file in the place of its name; other texts are left alone."""
    if isinstance(value, dict):
        return {key: _fill_in(item, media, used, is_name=key in _HOLDERS) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill_in(item, media, used, is_name=is_name) for item in value]
    if isinstance(value, str) and is_name:
        for name, content in media.items():
            if PurePosixPath(value).name == PurePosixPath(name).name:
                used.add(name)
                return {"bytes": content, "path": name}
    return value


def _write_media(value: Any) -> Any:
    """The value with a data URL in the place of each file."""
    if isinstance(value, dict):
        if isinstance(content := value.get("bytes"), bytes):
            return f"data:;base64,{base64.b64encode(content).decode()}"
        return {key: _write_media(item) for key, item in value.items()}
    return [_write_media(item) for item in value] if isinstance(value, list) else value
