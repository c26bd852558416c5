"""One sound of a row: checked by its header, decoded only when it is needed, identified by its content."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from marslora.core.errors import DataError
from marslora.data import _blobs
from marslora.data._blobs import StoredBlob
from marslora.data._values import describe_value

_PEAK_TIME = 12
"""Where a WAV file's ``PEAK`` chunk holds its time stamp: after its name, size and version, 4 bytes each."""
_STREAMED = 0xFFFFFFFF
"""The length in a WAV header if its writer did not know it, because the sound was streamed."""


class Sound:
    """A recording in a file or in bytes: WAV, FLAC, Ogg, MP3, whatever libsndfile reads."""

    def __init__(self, source: Path | bytes | StoredBlob) -> None:
        self.source = source

    def open(self, sampling_rate: int) -> NDArray[np.float32]:
        """All samples (T,) at ``sampling_rate`` hertz, channels averaged, resampled by a polyphase filter.

        Raises `DataError` if it cannot be decoded.
        """
        try:
            samples_TC, rate = soundfile.read(self._file(), dtype="float32", always_2d=True)
        except (OSError, RuntimeError, TypeError) as error:
            raise DataError(f"{self} cannot be decoded: {error}; copy or save it again") from None
        samples_T = samples_TC.mean(axis=1)
        if rate != sampling_rate:
            common = math.gcd(rate, sampling_rate)
            from scipy.signal import resample_poly  # slow to import, and most sounds have the wanted rate

            samples_T = resample_poly(samples_T, sampling_rate // common, rate // common)
        return np.ascontiguousarray(samples_T, dtype=np.float32)

    @cached_property
    def problem(self) -> str | None:
        """Why the sound cannot be used, as far as its header tells; None for a good one."""
        if isinstance(self.source, Path) and not self.source.is_file():
            return f"{self} does not exist: correct its path, or name the folder in which it starts (--image-folder)"
        try:
            frames, _ = self.length
        except (OSError, RuntimeError, TypeError) as error:
            return f"{self} is not a sound that libsndfile can open ({error}): save it as WAV or FLAC"
        if frames == 0:
            return f"{self} is empty: it holds no samples; record or save it again"
        stated, present = self._stated_bytes(), self._num_bytes()
        if stated > present:
            return f"{self} is cut off: its header states {stated} bytes, the file has {present}; copy it again"
        return None

    @cached_property
    def length(self) -> tuple[int, int]:
        """(samples a channel, samples a second), read from the header."""
        about = soundfile.info(self._file())
        return about.frames, about.samplerate

    @property
    def seconds(self) -> float:
        """The duration in seconds, from the header."""
        frames, rate = self.length
        return frames / rate

    @cached_property
    def digest(self) -> str:
        """A digest of 32 hex digits; equal files have equal digests, wherever they are stored."""
        if isinstance(self.source, Path):
            return _blobs.compute_file_digest(self.source)
        return self.source.digest if isinstance(self.source, StoredBlob) else _blobs.compute_digest(self.source)

    def _file(self) -> Path | io.BytesIO:
        return self.source if isinstance(self.source, Path) else io.BytesIO(self._bytes())

    def _bytes(self) -> bytes:
        return self.source.read() if isinstance(self.source, StoredBlob) else bytes(self.source)

    def _num_bytes(self) -> int:
        if isinstance(self.source, Path):
            return self.source.stat().st_size
        return self.source.num_bytes if isinstance(self.source, StoredBlob) else len(self.source)

    def _stated_bytes(self) -> int:
        """The size that a RIFF header states; 0 for other formats, which libsndfile checks itself."""
        if isinstance(self.source, Path):
            with self.source.open("rb") as file:
                start = file.read(8)
        else:
            start = self._bytes()[:8]
        stated = int.from_bytes(start[4:8], "little")
        return stated + 8 if start[:4] == b"RIFF" and stated != _STREAMED else 0

    def __str__(self) -> str:
        return f"audio `{self.source}`" if isinstance(self.source, Path) else f"audio of {self._num_bytes()} bytes"


def encode_wav(value: Any) -> bytes:
    """``{"array": samples (T,), (T, C) or (C, T), "sampling_rate": hertz}`` as a WAV file of 32-bit floats."""
    if not isinstance(value, Mapping) or value.get("sampling_rate") is None:
        raise DataError(
            "audio must be a path, a data URL, bytes or an object with `array` and `sampling_rate`, "
            f"found {describe_value(value)}"
        )
    try:
        samples = np.asarray(value["array"], dtype=np.float32)
    except (TypeError, ValueError):
        raise DataError(
            f"an audio's `array` must hold numbers, equally many in every channel, found {str(value['array'])[:40]}"
        ) from None
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T
    if samples.ndim not in (1, 2):
        raise DataError(
            f"an audio's `array` must have the shape (samples,) or (samples, channels), found {samples.shape}"
        )
    wav = io.BytesIO()
    soundfile.write(wav, samples, int(value["sampling_rate"]), format="WAV", subtype="FLOAT")
    return _clear_timestamp(wav.getvalue())


def _clear_timestamp(wav: bytes) -> bytes:
    """The file without the time at which libsndfile wrote it: equal sounds must be equal bytes, now and later."""
    start = wav.find(b"PEAK", 0, wav.find(b"data"))
    return wav if start < 0 else wav[: start + _PEAK_TIME] + bytes(4) + wav[start + _PEAK_TIME + 4 :]
