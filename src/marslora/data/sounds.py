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
_AVERAGED = "sounds with several channels: averaged"
_MAX_CHANNELS = 64
"""Channels of an array at most: with more, samples and channels have been exchanged."""
_MAX_RATE = 1_000_000
"""Samples a second at most; studios record 192,000."""
_LOUDEST = 16.0
"""Samples may exceed 1 where a recording is clipped later, not by 24 decibels: those are integers, not scaled."""
_SILENT_SHARE = 1e-4
"""What is left of channels that cancel each other out: rounding."""
_STREAMED = 0xFFFFFFFF
"""The length in a WAV header if its writer did not know it, because the sound was streamed."""


class Sound:
    """A recording in a file or in bytes: WAV, FLAC, Ogg, MP3, whatever libsndfile reads."""

    def __init__(self, source: Path | bytes | StoredBlob, changes: tuple[str, ...] = ()) -> None:
        self.source = source
        self._changes = changes

    def open(self, sampling_rate: int) -> NDArray[np.float32]:
        """All samples (T,) at ``sampling_rate`` hertz, channels averaged, resampled by a polyphase filter.

        Raises `DataError` if it cannot be decoded, or not without losing it.
        """
        try:
            samples_TC, rate = soundfile.read(self._file(), dtype="float32", always_2d=True)
        except (OSError, RuntimeError, TypeError) as error:
            raise DataError(f"{self} cannot be decoded: {_explain(error)}; copy or save it again") from None
        samples_T = samples_TC.mean(axis=1)
        self._check_samples(samples_TC, samples_T)
        if rate != sampling_rate:
            common = math.gcd(rate, sampling_rate)
            from scipy.signal import resample_poly  # slow to import, and most sounds have the wanted rate

            samples_T = resample_poly(samples_T, sampling_rate // common, rate // common)
        return np.ascontiguousarray(samples_T, dtype=np.float32)

    def _check_samples(self, samples_TC: NDArray[np.float32], samples_T: NDArray[np.float32]) -> None:
        loudest = float(np.abs(samples_TC).max(initial=0))
        if not math.isfinite(loudest):
            raise DataError(f"{self} holds samples that are not finite numbers: replace them and save it again")
        if loudest > _LOUDEST:
            raise DataError(
                f"{self} must have samples from -1 to 1, found {loudest:g}: divide them by the largest that their type "
                "allows (32768 for 16 bits) and save it again"
            )
        swing = float(np.ptp(samples_TC, axis=0).max()) if len(samples_T) else 0.0
        if swing and np.ptp(samples_T) <= _SILENT_SHARE * swing:
            raise DataError(
                f"{self} is silent once its {samples_TC.shape[1]} channels are averaged, since they cancel each other "
                "out: save one of them"
            )

    @cached_property
    def problem(self) -> str | None:
        """Why the sound cannot be used, as far as its header tells; None for a good one."""
        try:
            if isinstance(self.source, Path) and not self.source.is_file():
                return (
                    f"{self} does not exist: correct its path, or name the folder in which it starts (--image-folder)"
                )
            frames, _, _ = self._about
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            return f"{self} is not a sound that libsndfile can open ({_explain(error)}): save it as WAV or FLAC"
        if frames == 0:
            return f"{self} is empty: it holds no samples; record or save it again"
        stated, present = self._stated_bytes(), self._num_bytes()
        if stated > present:
            return f"{self} is cut off: its header states {stated} bytes, the file has {present}; copy it again"
        return None

    @property
    def length(self) -> tuple[int, int]:
        """(samples a channel, samples a second), read from the header."""
        frames, rate, _ = self._about
        return frames, rate

    @property
    def shape(self) -> tuple[int, ...]:
        """Sounds of equal shapes become equally many tokens."""
        return self.length

    @property
    def notes(self) -> tuple[str, ...]:
        """What was changed, or is changed when the sound is decoded."""
        return (*self._changes, _AVERAGED) if self._about[2] > 1 else self._changes

    @cached_property
    def _about(self) -> tuple[int, int, int]:
        """(samples a channel, samples a second, channels)."""
        about = soundfile.info(self._file())
        return about.frames, about.samplerate, about.channels

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


def _explain(error: Exception) -> str:
    """What libsndfile says, without the address of the file in memory."""
    return str(getattr(error, "error_string", error)).rstrip(".")


def encode_wav(value: Any) -> tuple[bytes, tuple[str, ...]]:
    """``{"array": samples (T,), (T, C) or (C, T), "sampling_rate": hertz}`` as a WAV file of 32-bit floats, and what
    was changed. Integers are scaled by the range of their type."""
    if not isinstance(value, Mapping) or value.get("sampling_rate") is None:
        raise DataError(
            "audio must be a path, a data URL, bytes or an object with `array` and `sampling_rate`, "
            f"found {describe_value(value)}"
        )
    samples, notes = _scale_samples(_read_array(value["array"]))
    wav = io.BytesIO()
    soundfile.write(wav, samples, _read_rate(value["sampling_rate"]), format="WAV", subtype="FLOAT")
    return _clear_timestamp(wav.getvalue()), notes


def _read_array(value: Any) -> NDArray[Any]:
    """Numbers (T,) or (T, C), in the type that they have."""
    try:
        samples = np.asarray(value)
    except (TypeError, ValueError, OverflowError):
        samples = np.asarray(None)
    if samples.dtype.kind not in "iuf":
        raise DataError(f"an audio's `array` must hold numbers, equally many in every channel, found {str(value)[:40]}")
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] > _MAX_CHANNELS):
        raise DataError(
            f"an audio's `array` must have the shape (samples,) or (samples, channels) with at most {_MAX_CHANNELS} "
            f"channels, found {samples.shape}"
        )
    return samples


def _read_rate(value: Any) -> int:
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not (is_number and 1 <= value <= _MAX_RATE and value == int(value)):
        raise DataError(
            f"an audio's `sampling_rate` must be a whole number of samples a second from 1 to {_MAX_RATE:,}, found "
            f"{describe_value(value)}"
        )
    return int(value)


def _scale_samples(samples: NDArray[Any]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Samples from -1 to 1, and what was changed. Lists of integers have no type: it is told from the largest."""
    most = float(np.abs(samples.astype(np.float64)).max(initial=0))
    is_whole = samples.dtype.kind in "iu" or (most > 1 and not (samples % 1).any())
    if not is_whole or most <= 1:
        return samples.astype(np.float32), ()
    if samples.dtype.kind in "iu" and samples.dtype.itemsize < 8:
        bits, offset = 8 * samples.dtype.itemsize, samples.dtype.kind == "u"
    else:
        bits, offset = next((bits for bits in (16, 32) if most <= 1 << (bits - 1)), 0), False
    if not bits:
        raise DataError(
            f"an audio's `array` must hold numbers from -1 to 1 or integers of 8 to 32 bits, found {most:g}"
        )
    half = 1 << (bits - 1)
    scaled = (samples.astype(np.float64) - (half if offset else 0)) / half
    return scaled.astype(np.float32), (f"sounds of integers: scaled by the range of {bits} bits",)


def _clear_timestamp(wav: bytes) -> bytes:
    """The file without the time at which libsndfile wrote it: equal sounds must be equal bytes, now and later."""
    start = wav.find(b"PEAK", 0, wav.find(b"data"))
    return wav if start < 0 else wav[: start + _PEAK_TIME] + bytes(4) + wav[start + _PEAK_TIME + 4 :]
