"""One picture of a row: checked by its header, opened only when it is needed, known by its content."""

from __future__ import annotations

import hashlib
import io
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from marslora.core.errors import DataError
from marslora.data import _blobs, _values
from marslora.data._blobs import BlobStore, StoredBlob
from marslora.data.sounds import Sound, encode_wav


class Picture:
    """A picture in a file, in bytes (kept on a shelf, where a file of rows held them) or already in memory."""

    def __init__(self, source: Path | bytes | StoredBlob | Image.Image) -> None:
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
        """Equal pictures have equal digests, wherever they lie."""
        if isinstance(self.source, Image.Image):
            hashed = hashlib.sha256(f"{self.source.mode} {self.source.size}".encode())
            hashed.update(self.source.tobytes())
            return hashed.hexdigest()[:32]
        if isinstance(self.source, Path):
            return _blobs.file_digest(self.source)
        return self.source.digest if isinstance(self.source, StoredBlob) else _blobs.digest(self.source)

    def _image(self) -> Image.Image:
        if isinstance(self.source, Image.Image):
            return self.source.copy()
        if isinstance(self.source, Path):
            return Image.open(self.source)
        return Image.open(io.BytesIO(self.source if isinstance(self.source, bytes) else self.source.read()))

    def __str__(self) -> str:
        if isinstance(self.source, Path):
            return f"image `{self.source}`"
        if isinstance(self.source, Image.Image):
            return "image in memory"
        return f"image of {len(self.source) if isinstance(self.source, bytes) else self.source.num_bytes} bytes"


class MediaCache:
    """Makes pictures and sounds out of what rows hold; a file that many rows name, or equal bytes, are made once.

    Bytes go onto the shelf, so that memory does not grow with what the rows carry.
    """

    def __init__(self, folder: Path, store: BlobStore | None = None) -> None:
        self._folder = folder
        self._blobs_store = store if store is not None else BlobStore()
        self._pictures: dict[Path | str, Picture] = {}
        self._sounds: dict[Path | str, Sound] = {}

    def get_picture(self, value: Any) -> Picture:
        """The picture of a path, data URL, bytes, ``{"bytes": ..., "path": ...}`` or PIL image."""
        found = _values.unwrap_value(value, "image")
        if isinstance(found, Image.Image):
            return Picture(found)
        if not isinstance(found, Path | bytes):
            raise DataError(f"an image must be a path, a data URL, bytes or a picture, found {type(found).__name__}")
        key = _key(found)
        if key not in self._pictures:
            self._pictures[key] = Picture(self._source(found))
        return self._pictures[key]

    def get_sound(self, value: Any) -> Sound:
        """The sound of a path, data URL, bytes, ``{"bytes": ..., "path": ...}`` or ``{"array", "sampling_rate"}``."""
        found = _values.unwrap_value(value, "audio")
        if not isinstance(found, Path | bytes):
            found = encode_wav(found)
        key = _key(found)
        if key not in self._sounds:
            self._sounds[key] = Sound(self._source(found))
        return self._sounds[key]

    def _source(self, found: Path | bytes) -> Path | StoredBlob:
        return self._folder / found if isinstance(found, Path) else self._blobs_store.put(found)


def _key(found: Path | bytes) -> Path | str:
    return found if isinstance(found, Path) else _blobs.digest(found)
