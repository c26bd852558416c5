"""Make pictures, sounds and videos from the values in rows; equal ones of near rows are made only once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from marslora.core.data_files import MEMORY, is_inside
from marslora.core.errors import DataError
from marslora.core.spec import MAX_FRAMES, MAX_PIXELS
from marslora.data import _blobs, _values
from marslora.data._blobs import BlobStore, StoredBlob
from marslora.data._values import describe_value
from marslora.data.pictures import Picture
from marslora.data.sounds import Sound, encode_wav
from marslora.data.videos import Video

_MOST = 4096
"""Media of each kind that are remembered: rows with the same one are mostly neighbours, and memory stays flat."""
MediumT = TypeVar("MediumT", Picture, Sound, Video)


class MediaCache:
    """The pictures, sounds and videos of rows whose relative paths start in one folder.

    Bytes inside rows go into a `BlobStore`, so that memory does not grow with what the rows carry. Pictures of more
    than ``max_pixels`` pixels are scaled down when they are opened, and videos show at most ``max_frames`` frames.
    """

    def __init__(
        self,
        folder: Path,
        blobs: BlobStore | None = None,
        max_pixels: int = MAX_PIXELS,
        max_frames: int = MAX_FRAMES,
        *,
        allow_outside: bool = True,
    ) -> None:
        self._folder = folder
        self._root = None if allow_outside else os.path.realpath(folder)
        self._max_pixels = max_pixels
        self._max_frames = max_frames
        self._blobs = blobs if blobs is not None else BlobStore()
        self._pictures: dict[Path | str, Picture] = {}
        self._sounds: dict[Path | str, Sound] = {}
        self._videos: dict[Path | str, Video] = {}

    def get_picture(self, value: Any, notes: list[str] | None = None) -> Picture:
        """The picture of a path, data URL, bytes, ``{"bytes": ..., "path": ...}`` or PIL image; what is not read of an
        object is added to ``notes``."""
        content = _values.unwrap_value(value, "image", notes)
        if isinstance(content, Image.Image):
            return Picture(content, self._max_pixels)
        if not isinstance(content, Path | bytes):
            raise DataError(
                f"an image must be a path, a data URL, bytes or a PIL image, found {describe_value(content)}"
            )
        key = _make_key(content)
        if key not in self._pictures:
            _add(self._pictures, key, Picture(self._keep(content, "image"), self._max_pixels))
        return self._pictures[key]

    def get_sound(self, value: Any, notes: list[str] | None = None) -> Sound:
        """The sound of a path, data URL, bytes, ``{"bytes": ..., "path": ...}`` or ``{"array", "sampling_rate"}``; what
        is not read of an object is added to ``notes``."""
        content = _values.unwrap_value(value, "audio", notes)
        changes: tuple[str, ...] = ()
        if not isinstance(content, Path | bytes):
            content, changes = encode_wav(content)
        key = _make_key(content)
        if key not in self._sounds:
            _add(self._sounds, key, Sound(self._keep(content, "audio"), changes))
        return self._sounds[key]

    def get_video(self, value: Any, notes: list[str] | None = None) -> Video:
        """The video of a path, data URL, bytes or ``{"bytes": ..., "path": ...}``; what is not read of an object is
        added to ``notes``."""
        if isinstance(value, list | tuple):
            raise DataError(
                f"a video must be one file, found a list of {len(value)} frames: save them as a video, or name them in "
                "the column `images`"
            )
        content = _values.unwrap_value(value, "video", notes)
        if not isinstance(content, Path | bytes):
            raise DataError(f"a video must be a path, a data URL or bytes, found {describe_value(content)}")
        key = _make_key(content)
        if key not in self._videos:
            _add(self._videos, key, Video(self._keep(content, "video"), self._max_frames, self._max_pixels))
        return self._videos[key]

    def _keep(self, content: Path | bytes, what: str) -> Path | StoredBlob:
        """Raises `DataError` for a path that leaves the folder, unless that is allowed."""
        if not isinstance(content, Path):
            return self._blobs.put(content)
        path = self._folder / content
        if self._root is not None and not is_inside(path, self._root):
            raise DataError(
                f"{what} `{content}` is outside the folder `{self._folder}`: move it there, name the folder that all "
                "of them are in (--image-folder), or, if you trust the rows, allow it (--allow-outside)"
            )
        return path


class MediaCaches:
    """A `MediaCache` for every folder that relative paths start from; all share one `BlobStore`."""

    def __init__(
        self,
        image_folder: str | None,
        max_pixels: int = MAX_PIXELS,
        max_frames: int = MAX_FRAMES,
        *,
        allow_outside: bool = False,
    ) -> None:
        self._allow_outside = allow_outside
        self._image_folder = Path(image_folder).expanduser() if image_folder is not None else None
        self._max_pixels = max_pixels
        self._max_frames = max_frames
        self._blobs = BlobStore()
        self._caches: dict[tuple[Path, bool], MediaCache] = {}

    def get(self, folder: Path, place: str) -> MediaCache:
        """The cache for the rows of ``place``, whose relative paths start in ``folder``, unless an image folder was
        named for all. Their paths stay in there; those of rows in memory, which this program made, need not."""
        folder = self._image_folder if self._image_folder is not None else folder
        allowed = self._allow_outside or place.startswith(MEMORY)
        if (folder, allowed) not in self._caches:
            made = MediaCache(folder, self._blobs, self._max_pixels, self._max_frames, allow_outside=allowed)
            self._caches[folder, allowed] = made
        return self._caches[folder, allowed]


def _add(known: dict[Path | str, MediumT], key: Path | str, medium: MediumT) -> None:
    """Remember one more; the oldest is forgotten."""
    if len(known) >= _MOST:
        del known[next(iter(known))]
    known[key] = medium


def _make_key(content: Path | bytes) -> Path | str:
    return content if isinstance(content, Path) else _blobs.compute_digest(content)
