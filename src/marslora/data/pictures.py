"""One picture of a row: checked by its header, decoded only when it is needed, identified by its content."""

from __future__ import annotations

import hashlib
import io
from functools import cached_property
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from marslora.core.errors import DataError
from marslora.data import _blobs
from marslora.data._blobs import StoredBlob


class Picture:
    """A picture in a file, in bytes (in a `BlobStore` if rows held them) or already in memory."""

    def __init__(self, source: Path | bytes | StoredBlob | Image.Image) -> None:
        self.source = source

    def open(self) -> Image.Image:
        """The whole picture, upright, in RGB. Raises `DataError` if it cannot be decoded."""
        try:
            with self._image() as image:
                return ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{self} cannot be decoded: {error}; copy or save it again") from None

    @cached_property
    def problem(self) -> str | None:
        """Why the picture cannot be used, as far as its header tells; None for a good one."""
        if isinstance(self.source, Path) and not self.source.is_file():
            return f"{self} does not exist: correct its path, or name the folder in which it starts (--image-folder)"
        try:
            width, height = self.size
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            return f"{self} is not a picture that Pillow can open ({type(error).__name__}): save it as PNG or JPEG"
        except Image.DecompressionBombError:
            most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            return f"{self} has more than {most:,} pixels and may be a decompression bomb: scale it down"
        return None if width and height else f"{self} is empty ({width} x {height} pixels): save it again"

    @cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, read from the header."""
        if isinstance(self.source, Image.Image):
            return self.source.size
        with self._image() as image:
            return image.size

    @cached_property
    def digest(self) -> str:
        """A digest of 32 hex digits; equal pictures have equal digests, wherever they are stored."""
        if isinstance(self.source, Image.Image):
            hashed = hashlib.sha256(f"{self.source.mode} {self.source.size}".encode())
            hashed.update(self.source.tobytes())
            return hashed.hexdigest()[:32]
        if isinstance(self.source, Path):
            return _blobs.compute_file_digest(self.source)
        return self.source.digest if isinstance(self.source, StoredBlob) else _blobs.compute_digest(self.source)

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
