"""One picture of a row: checked by its header, decoded only when it is needed, identified by its content."""

from __future__ import annotations

import hashlib
import io
from functools import cached_property
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from marslora.core.errors import DataError
from marslora.core.spec import MAX_PIXELS
from marslora.data import _blobs, _pixels
from marslora.data._blobs import StoredBlob

_NOTHING = (0, 0)
"""The size of a picture that cannot be used."""
_Header = tuple[str | None, tuple[int, int], tuple[str, ...]]
"""(why the picture cannot be used, its decoded size, what is changed when it is decoded)."""


class Picture:
    """A picture in a file, in bytes (in a `BlobStore` if rows held them) or already in memory.

    One of more than ``max_pixels`` pixels is scaled down.
    """

    def __init__(self, source: Path | bytes | StoredBlob | Image.Image, max_pixels: int = MAX_PIXELS) -> None:
        self.source = source
        self.max_pixels = max_pixels

    def open(self) -> Image.Image:
        """The whole picture, upright, in RGB. Raises `DataError` if it cannot be decoded, or not without losing it."""
        try:
            with self._image() as image:
                return _pixels.to_rgb(image, self.max_pixels)
        except MemoryError:
            raise
        except DataError as error:
            raise DataError(f"{self} {error}") from None
        except Exception as error:  # decoders raise whatever a damaged file leads them to
            raise DataError(f"{self} cannot be decoded: {error}; copy or save it again") from None

    @property
    def problem(self) -> str | None:
        """Why the picture cannot be used, as far as its header tells; None for a good one."""
        return self._header[0]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels of the decoded picture, as its header tells."""
        return self._header[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Pictures of equal shapes become equally many tokens."""
        return self.size

    @property
    def notes(self) -> tuple[str, ...]:
        """What is changed when the picture is decoded, as far as its header tells."""
        return self._header[2]

    @cached_property
    def _header(self) -> _Header:
        try:
            if isinstance(self.source, Path) and not self.source.is_file():
                reason = (
                    f"{self} does not exist: correct its path, or name the folder in which it starts (--image-folder)"
                )
                return reason, _NOTHING, ()
            with self._image() as image:
                size, notes = _pixels.describe_header(image, self.max_pixels)
        except MemoryError:
            raise
        except Image.DecompressionBombError:
            most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            return f"{self} has more than {most:,} pixels and may be a decompression bomb: scale it down", _NOTHING, ()
        except UnidentifiedImageError:
            return (
                f"{self} is not a picture that Pillow can open as a grid of pixels: save it as PNG or JPEG",
                (0, 0),
                (),
            )
        except Exception as error:  # decoders raise whatever a damaged file leads them to
            return f"{self} is not a picture that Pillow can open ({error}): save it as PNG or JPEG", _NOTHING, ()
        width, height = size
        empty = f"{self} is empty ({width} x {height} pixels): save it again"
        return None if width and height else empty, size, notes

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
        Image.init()  # Pillow looks for formats that are named among those that it has loaded
        if isinstance(self.source, Path):
            return Image.open(self.source, formats=_pixels.RASTER_FORMATS)
        data = self.source if isinstance(self.source, bytes) else self.source.read()
        return Image.open(io.BytesIO(data), formats=_pixels.RASTER_FORMATS)

    def __str__(self) -> str:
        if isinstance(self.source, Path):
            return f"image `{self.source}`"
        if isinstance(self.source, Image.Image):
            return "image in memory"
        return f"image of {len(self.source) if isinstance(self.source, bytes) else self.source.num_bytes} bytes"
