"""Unwrap what a row holds for a picture, a sound or a video: a path, bytes, base64 text, or an object in memory."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marslora.core.errors import DataError

_KEYS = ("bytes", "array", "data", "path", "url", "image", "audio", "video", "base64")
"""The keys under which an object holds its picture, sound or video; the first that is present counts."""
_BASE64 = ("base64", "data")
"""Those whose text is base64, not a path."""
TYPES = ("format", "mime_type", "media_type", "type")
"""Keys that say what the content itself says too."""
_CUTS = frozenset(
    ("start", "end", "start_time", "end_time", "begin", "offset", "duration", "frame_offset", "num_frames", "segment")
) | {"crop", "bbox", "box", "region", "video_start", "video_end", "segments"}
"""Keys that name a part of a medium: to leave them out would show another one."""
_BARE_BASE64 = re.compile(
    r"(iVBORw0KGgo|/9j/|R0lGOD|UklGR|SUkqA|TU0AK|T2dnUw|ZkxhQ|SUQz|AAAA[A-Za-z0-9+/]{2}Z0eX|GkXfo)"
    r"[A-Za-z0-9+/\s]{24,}={0,2}\s*"
)
"""How PNG, JPEG, GIF, WebP and WAV, TIFF, Ogg, FLAC, MP3, MP4 and WebM begin as base64: such text is no path."""


def unwrap_value(value: Any, what: str, notes: list[str] | None = None) -> Any:
    """What a cell of a row holds: a path as `Path`, bytes, or an object in memory. ``what`` (image, audio or video) is
    for messages; what is not read of an object is added to ``notes``.

    Raises `DataError` for damaged base64 text, for addresses on the network, for objects without a known key and for
    those that name a part of their content.
    """
    while isinstance(value, Mapping):
        check_keys(value, what, (*_KEYS, *TYPES, "sampling_rate"), notes)
        if "array" in value and value["array"] is not None and value.get("bytes") is None:
            return value
        value = _unwrap_object(value, what)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return _parse_text(str(value), what) if isinstance(value, str | Path) else value


def check_keys(value: Mapping[Any, Any], what: str, known: tuple[str, ...], notes: list[str] | None) -> None:
    """Note the keys of a medium that are not read; raise `DataError` for one that names a part of it."""
    for key in value:
        if value[key] is None or key in known:
            continue
        if key in _CUTS:
            raise DataError(
                f"{_name(what)}'s `{key}` ({describe_value(value[key])}) is not followed: save that part to its own "
                "file"
            )
        if notes is not None:
            notes.append(f"`{key}` of {_name(what)}: not read")


def _unwrap_object(value: Mapping[str, Any], what: str) -> Any:
    for key in _KEYS:
        if value.get(key) is not None:
            content = value[key]
            return decode_base64(content, what) if key in _BASE64 and isinstance(content, str) else content
    raise DataError(
        f"{_name(what)} must have `bytes` or a `path`, found the keys {sorted(map(str, value))}: rename one of them"
    )


def _parse_text(text: str, what: str) -> Path | bytes:
    if text.startswith("data:"):
        header, comma, data = text.partition(",")
        if not comma or not header.endswith(";base64"):
            raise DataError(
                f"a data URL must have the form `data:{what}/...;base64,...`, found `{text[:40]}`: encode it as base64"
            )
        return decode_base64(data, what)
    if text.startswith(("http://", "https://")):
        raise DataError(f"{what} `{text}` is on the network and is not downloaded: save it to a file and name that")
    if _BARE_BASE64.fullmatch(text):
        return decode_base64(text, what)
    if "\0" in text:
        raise DataError(f"{_name(what)}'s path must not hold a zero character, found {text[:40]!r}: correct it")
    try:
        return Path(text.removeprefix("file://")).expanduser()
    except RuntimeError:
        raise DataError(f"{what} `{text}` begins with the home of an unknown user: write the whole path") from None


def _name(what: str) -> str:
    """The medium with its article, for messages."""
    return f"a {what}" if what == "video" else f"an {what}"


def describe_value(value: Any) -> str:
    """The type and the beginning of a value, for messages: ``str 'hello'``."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def decode_base64(text: str, what: str) -> bytes:
    """The bytes that base64 ``text`` stands for; line breaks in it are left out."""
    content = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError):
        raise DataError(
            f"{_name(what)}'s base64 text is damaged, found `{text[:40]}` ({len(text)} characters): encode it again"
        ) from None
