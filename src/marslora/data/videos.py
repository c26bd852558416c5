"""One video of a row: checked by its header, decoded only when frames are needed, identified by its content."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marslora.core.errors import DataError
from marslora.core.spec import MAX_FRAMES, MAX_PIXELS
from marslora.data import _blobs
from marslora.data._blobs import StoredBlob

_SILENT = "videos with sound: only their pictures are read"
_STILL = 2
"""Brightness levels by which pixels of one colour differ after a lossy codec."""
_WHOLE = 0.95
"""Share of the stated frames that a whole video has at least: headers count frames that editing has hidden."""
_INSTALL = "pip install 'marslora[video]'"


@dataclass(frozen=True)
class VideoHeader:
    """What a video's header says."""

    num_frames: int
    fps: float
    """Frames a second."""
    size: tuple[int, int]
    """(width, height) in pixels of the decoded frames."""
    notes: tuple[str, ...] = ()
    """What is changed or left out."""

    @property
    def seconds(self) -> float:
        """How long the video lasts."""
        return self.num_frames / self.fps


_NOTHING = VideoHeader(0, 1.0, (0, 0))
"""The header of a video that cannot be used."""


class Video:
    """A video in a file or in bytes: MP4, WebM, AVI, whatever PyAV reads.

    At most ``max_frames`` of its frames are shown, and larger ones are scaled down to ``max_pixels`` pixels each.
    """

    def __init__(
        self, source: Path | bytes | StoredBlob, max_frames: int = MAX_FRAMES, max_pixels: int = MAX_PIXELS
    ) -> None:
        self.source = source
        self.max_frames = max_frames
        self.max_pixels = max_pixels

    def open(self, indices: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """Frames (F, H, W, 3) in RGB, upright: those of increasing ``indices``, or `spread_frames` over all.

        Raises `DataError` if it cannot be decoded, or if every pixel of every frame has the same colour.
        """
        header = self.header
        wanted = list(indices) if indices is not None else spread_frames(range(header.num_frames), self.max_frames)
        try:
            frames, num_decoded = self._decode(header, wanted)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise whatever a damaged file leads them to
            raise DataError(f"{self} cannot be decoded: {_explain(error)}; copy or save it again") from None
        if len(frames) < len(wanted):
            raise DataError(
                f"{self} is cut off: its header states {header.num_frames} frames, and {num_decoded} can be decoded; "
                "copy it again"
            )
        frames_FHWC = np.stack(frames)
        if np.ptp(frames_FHWC, axis=(0, 1, 2)).max() <= _STILL:
            raise DataError(
                f"{self} shows nothing: all its frames are of one colour once they are decoded; save it again with "
                "another codec, such as H.264"
            )
        return frames_FHWC

    def _decode(self, header: VideoHeader, wanted: list[int]) -> tuple[list[NDArray[np.uint8]], int]:
        """(the wanted frames, as many as can be decoded; how many were decoded). A video cannot be entered anywhere:
        all frames before are decoded. Where a header states slightly too many, the last frame stands in for them."""
        frames: list[NDArray[np.uint8]] = []
        number, frame = 0, None
        with self._container() as container:
            container.streams.video[0].thread_type = "AUTO"
            for number, frame in enumerate(container.decode(video=0), start=1):
                while len(frames) < len(wanted) and wanted[len(frames)] < number:
                    frames.append(_convert(frame, header.size))
                if len(frames) == len(wanted):
                    break
        if frame is not None and number >= _WHOLE * header.num_frames:
            frames += [_convert(frame, header.size)] * (len(wanted) - len(frames))
        return frames, number

    @property
    def num_pixels(self) -> int:
        """Pixels of all frames that are decoded."""
        width, height = self.header.size
        return width * height * min(self.header.num_frames, self.max_frames)

    @property
    def problem(self) -> str | None:
        """Why the video cannot be used, as far as its header tells; None for a good one."""
        return self._about[0]

    @property
    def header(self) -> VideoHeader:
        """What its header says."""
        return self._about[1]

    @property
    def shape(self) -> tuple[float, ...]:
        """Videos of equal shapes become equally many tokens."""
        return (self.header.num_frames, self.header.fps, *self.header.size)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is changed or left out when the video is decoded, as far as its header tells."""
        return self.header.notes

    @cached_property
    def _about(self) -> tuple[str | None, VideoHeader]:
        if isinstance(self.source, Path) and not self.source.is_file():
            reason = f"{self} does not exist: correct its path, or name the folder in which it starts (--image-folder)"
            return reason, _NOTHING
        try:
            header = self._read_header()
        except MemoryError:
            raise
        except ImportError:
            return f"{self} cannot be decoded, since PyAV is not installed: {_INSTALL}", _NOTHING
        except Exception as error:  # decoders raise whatever a damaged file leads them to
            return f"{self} is not a video that PyAV can open ({_explain(error)}): save it as MP4", _NOTHING
        if header.num_frames < 2:
            return (
                f"{self} must have at least 2 frames, found {header.num_frames}: name a picture as an image",
                _NOTHING,
            )
        return None, header

    def _read_header(self) -> VideoHeader:
        with self._container() as container:
            if not container.streams.video:
                raise ValueError("it has no pictures")
            stream = container.streams.video[0]
            notes = [_SILENT] if container.streams.audio else []
            fps, num_frames = float(stream.average_rate or stream.guessed_rate or 0), stream.frames
            first = next(container.decode(stream))
            size = (first.width, first.height)[:: -1 if count_turns(first) % 2 else 1]
        num_frames = num_frames or self._count_packets()
        if not num_frames or not fps or not all(size):
            raise ValueError(f"{num_frames} frames of {size[0]} x {size[1]} pixels, {fps:g} a second")
        scale = (self.max_pixels / (size[0] * size[1])) ** 0.5
        if scale < 1:
            size = (max(1, int(size[0] * scale)), max(1, int(size[1] * scale)))
            notes.append(f"videos of more than {self.max_pixels:,} pixels a frame (`max_pixels`): scaled down")
        return VideoHeader(num_frames, fps, size, tuple(notes))

    def _count_packets(self) -> int:
        """The number of frames, counted without decoding them: some containers do not state it."""
        with self._container() as container:
            return sum(packet.size > 0 for packet in container.demux(video=0))

    @cached_property
    def digest(self) -> str:
        """A digest of 32 hex digits; equal files have equal digests, wherever they are stored."""
        if isinstance(self.source, Path):
            return _blobs.compute_file_digest(self.source)
        return self.source.digest if isinstance(self.source, StoredBlob) else _blobs.compute_digest(self.source)

    @contextmanager
    def _container(self) -> Iterator[Any]:
        import av  # an extra

        if isinstance(self.source, Path):
            source: Any = str(self.source)
        else:
            source = io.BytesIO(self.source if isinstance(self.source, bytes) else self.source.read())
        with av.open(source) as container:
            yield container

    def __str__(self) -> str:
        if isinstance(self.source, Path):
            return f"video `{self.source}`"
        return f"video of {len(self.source) if isinstance(self.source, bytes) else self.source.num_bytes} bytes"


def _explain(error: Exception) -> str:
    """What FFmpeg says, without its number and the file's name."""
    return str(getattr(error, "strerror", None) or error)


def _convert(frame: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The frame (H, W, 3) in RGB, upright and of this (width, height)."""
    turns = count_turns(frame)
    width, height = size[::-1] if turns % 2 else size
    pixels = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, turns))


def count_turns(frame: Any) -> int:
    """Quarter turns to the left after which a frame is upright: telephones write videos on their side."""
    return round(getattr(frame, "rotation", 0) / 90) % 4


def spread_frames(indices: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of some frames, the first and the last among them, evenly spread."""
    if len(indices) <= most:
        return list(indices)
    return [indices[place] for place in np.linspace(0, len(indices) - 1, most).round().astype(int).tolist()]
