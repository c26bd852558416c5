"""One picture of a row: checked by its header, opened only when it is needed, known by its content."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from marslora.core.errors import DataError

_EDGE_BYTES = 1 << 16


class Picture:
    """A picture in a file, in bytes or already in memory."""

    def __init__(self, source: Path | bytes | Image.Image) -> None:
        self.source = source

    def open(self) -> Image.Image:
        """The whole picture, upright, in RGB. Raises `DataError` where it cannot be decoded."""
        try:
            with self._image() as image:
                return ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{self} cannot be decoded: {error}") from None

    @cached_property
    def problem(self) -> str | None:
        """Why the picture cannot be used, judged by its header alone; None for a good one."""
        if isinstance(self.source, Path) and not self.source.is_file():
            return f"{self} does not exist"
        try:
            width, height = self.size
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            return f"{self} is no picture that can be opened ({type(error).__name__})"
        except Image.DecompressionBombError:
            return f"{self} has more pixels than {2 * (Image.MAX_IMAGE_PIXELS or 0):,}: it looks like a bomb"
        return None if width and height else f"{self} is empty"

    @cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, read from the header."""
        if isinstance(self.source, Image.Image):
            return self.source.size
        with self._image() as image:
            return image.size

    @cached_property
    def digest(self) -> str:
        """Equal pictures have equal digests: from the size in bytes and the first and last 64 KiB."""
        hashed = hashlib.sha256()
        if isinstance(self.source, Image.Image):
            hashed.update(f"{self.source.mode} {self.source.size}".encode())
            hashed.update(self.source.tobytes())
        elif isinstance(self.source, Path):
            _update_from_file(hashed, self.source)
        else:
            _update_from_bytes(hashed, self.source)
        return hashed.hexdigest()[:32]

    def _image(self) -> Image.Image:
        if isinstance(self.source, Image.Image):
            return self.source.copy()
        return Image.open(io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source)

    def __str__(self) -> str:
        if isinstance(self.source, Path):
            return f"image `{self.source}`"
        kind = "in memory" if isinstance(self.source, Image.Image) else f"of {len(self.source)} bytes"
        return f"image {kind}"


class Album:
    """Makes pictures out of what rows hold; a file that many rows name is one picture."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_path: dict[str, Picture] = {}

    def picture(self, value: Any) -> Picture:
        """The picture of a path, data URL, bytes, ``{"bytes": ..., "path": ...}`` or PIL image."""
        if isinstance(value, Mapping):
            value = _from_mapping(value)
        if isinstance(value, str | Path):
            return self._from_text(str(value))
        if isinstance(value, bytes | Image.Image):
            return Picture(value)
        raise DataError(f"an image must be a path, a data URL, bytes or a picture, found {type(value).__name__}")

    def _from_text(self, text: str) -> Picture:
        if text.startswith("data:"):
            return Picture(_from_data_url(text))
        if text.startswith(("http://", "https://")):
            raise DataError(f"image `{text}` is on the network: save it to a file first")
        if text not in self._by_path:
            path = Path(text.removeprefix("file://")).expanduser()
            self._by_path[text] = Picture(path if path.is_absolute() else self._folder / path)
        return self._by_path[text]


def _from_mapping(value: Mapping[str, Any]) -> Any:
    for key in ("bytes", "path", "url", "image", "base64"):
        if value.get(key) is not None:
            return _from_base64(value[key]) if key == "base64" else value[key]
    raise DataError(f"an image must have `bytes` or a `path`, found the keys {sorted(value)}")


def _from_data_url(text: str) -> bytes:
    header, comma, data = text.partition(",")
    if not comma or not header.endswith(";base64"):
        raise DataError(f"a data URL must read `data:image/...;base64,...`, found `{text[:40]}`")
    return _from_base64(data)


def _from_base64(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise DataError("an image's base64 text is damaged") from None


def _update_from_file(hashed: Any, path: Path) -> None:
    num_bytes = path.stat().st_size
    hashed.update(str(num_bytes).encode())
    with path.open("rb") as file:
        hashed.update(file.read(_EDGE_BYTES))
        if num_bytes > _EDGE_BYTES:
            file.seek(max(_EDGE_BYTES, num_bytes - _EDGE_BYTES))
            hashed.update(file.read())


def _update_from_bytes(hashed: Any, data: bytes) -> None:
    hashed.update(str(len(data)).encode())
    hashed.update(data[:_EDGE_BYTES])
    hashed.update(data[max(_EDGE_BYTES, len(data) - _EDGE_BYTES) :])
