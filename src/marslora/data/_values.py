"""Unwrap what a row holds for a picture or a sound: a path, bytes, base64 text, or an object in memory."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marslora.core.errors import DataError

_KEYS = ("bytes", "array", "data", "path", "url", "image", "audio", "base64")
"""The keys under which an object holds its picture or sound; the first that is present counts."""
_BASE64 = ("base64", "data")
"""Those whose text is base64, not a path."""


def unwrap_value(value: Any, what: str) -> Any:
    """What a cell of a row holds: a path as `Path`, bytes, or an object in memory. ``what`` (image or audio) is for
    messages.

    Raises `DataError` for damaged base64 text, for addresses on the network and for objects without a known key.
    """
    while isinstance(value, Mapping) and "array" not in value:
        value = _unwrap_object(value, what)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return _parse_text(str(value), what) if isinstance(value, str | Path) else value


def _unwrap_object(value: Mapping[str, Any], what: str) -> Any:
    for key in _KEYS:
        if value.get(key) is not None:
            content = value[key]
            return decode_base64(content, what) if key in _BASE64 and isinstance(content, str) else content
    raise DataError(f"an {what} must have `bytes` or a `path`, found the keys {sorted(value)}: rename one of them")


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
    return Path(text.removeprefix("file://")).expanduser()


def describe_value(value: Any) -> str:
    """The type and the beginning of a value, for messages: ``str 'hello'``."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def decode_base64(text: str, what: str) -> bytes:
    """The bytes that base64 ``text`` stands for."""
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise DataError(
            f"an {what}'s base64 text is damaged, found `{text[:40]}` ({len(text)} characters): encode it again"
        ) from None
