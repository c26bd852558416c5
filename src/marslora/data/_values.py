"""What a row holds where a picture or a sound belongs: a path, bytes, base64 text, or an object in memory."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marslora.core.errors import DataError

_KEYS = ("bytes", "array", "data", "path", "url", "image", "audio", "base64")
_BASE64 = ("base64", "data")


def unwrap_value(value: Any, what: str) -> Any:
    """A path as `Path`, bytes, or an object in memory; ``what`` is image or audio, for messages.

    Raises `DataError` for damaged base64 text, for addresses on the network and for objects without a known key.
    """
    while isinstance(value, Mapping) and "array" not in value:
        value = _inner(value, what)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return _from_text(str(value), what) if isinstance(value, str | Path) else value


def _inner(value: Mapping[str, Any], what: str) -> Any:
    for key in _KEYS:
        if value.get(key) is not None:
            found = value[key]
            return decode_base64(found, what) if key in _BASE64 and isinstance(found, str) else found
    raise DataError(f"an {what} must have `bytes` or a `path`, found the keys {sorted(value)}")


def _from_text(text: str, what: str) -> Path | bytes:
    if text.startswith("data:"):
        header, comma, data = text.partition(",")
        if not comma or not header.endswith(";base64"):
            raise DataError(f"a data URL must read `data:{what}/...;base64,...`, found `{text[:40]}`")
        return decode_base64(data, what)
    if text.startswith(("http://", "https://")):
        raise DataError(f"{what} `{text}` is on the network: save it to a file first")
    return Path(text.removeprefix("file://")).expanduser()


def decode_base64(text: str, what: str) -> bytes:
    """The bytes that base64 ``text`` stands for."""
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"an {what}'s base64 text is damaged") from None
