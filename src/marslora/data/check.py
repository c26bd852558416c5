"""Check a data set: read every row once, decode its pictures, sounds and videos, measure lengths, list bad rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marslora.core.errors import DataError
from marslora.core.record import Record
from marslora.core.spec import MAX_FRAMES, MAX_PIXELS
from marslora.data import _readers
from marslora.data._readers._base import AbstractSource
from marslora.data._repeats import RepeatFinder
from marslora.data._row_checks import COUNTED, RowChecker, RowChunk, RowReport, check_chunks
from marslora.data.splits import BadRow, RowProgress

_ROWS_AT_ONCE = 16
"""Rows of a chunk: enough to make sending them to a process cheap, few enough to keep a progress bar moving."""
_NAMED_REPEATS = 5
"""Repeated rows that a report names; the rest is counted."""
_BINS = 24
"""The most bins of a histogram: as many as fit on a terminal's screen."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""The quantiles that are reported; both ends matter for choosing ``max_length`` and the batch size."""


class LengthSummary(Record):
    """How long the rows of a data set are, in one unit."""

    mean: float
    least: int
    most: int
    quantiles: dict[str, int]
    """By share: ``{"0.5": 210}`` says that half of the rows have at most 210."""
    edges: tuple[int, ...]
    """Of the histogram's bins, all equally wide, one more than ``counts``; a bin includes its first edge."""
    counts: tuple[int, ...]


class CheckReport(Record):
    """What a data set holds: counts, lengths, and every bad row."""

    sources: tuple[str, ...]
    num_rows: int
    num_bad: int
    num_turns: int
    """Turns of users and assistants in good rows; the figures below are of good rows too."""
    num_images: int
    num_sounds: int
    audio_seconds: float
    num_videos: int
    video_seconds: float
    num_frames: int
    """Frames of all videos as their headers state them; the processor chooses some of them."""
    num_repeats: int
    """Rows whose text, pictures, sounds and videos all equal those of an earlier row."""
    repeats: tuple[str, ...]
    """The first of them, at most 5, each with the row that it repeats."""
    lengths: dict[str, LengthSummary]
    """By unit: ``tokens`` and ``text tokens`` (without those of media) if a processor was given, else
    ``characters`` and ``words``."""
    notes: dict[str, int]
    """What was not read or is changed -> the number of good rows that it holds for."""
    bad: tuple[BadRow, ...]
    """Every bad row, in order; row 0 stands for the rest of a file from which nothing more can be read."""


def resolve_files(sources: Sequence[str], role: str = "train", *, allow_outside: bool = False) -> list[AbstractSource]:
    """The files that the sources stand for. Raises `DataError` for one that does not exist."""
    return [file for source in sources for file in _readers.find_files(source, role, allow_outside=allow_outside)]


def check_folder(image_folder: str | None) -> None:
    """Raise `DataError` if the folder in which relative paths start is none."""
    if image_folder is not None and not Path(image_folder).expanduser().is_dir():
        raise DataError(
            f"`image_folder` must be a folder, found {image_folder!r} (looked for {Path(image_folder).absolute()}). "
            "Correct its path."
        )


def check_data(
    sources: Sequence[str],
    *,
    image_folder: str | None = None,
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_FRAMES,
    allow_outside: bool = False,
    processor: Callable[[], Any] | None = None,
    workers: int = 1,
    progress: RowProgress | None = None,
) -> CheckReport:
    """Read all rows of ``sources``, decode every picture, sound and video, and count.

    ``processor`` makes the model's processor, which measures lengths in tokens; it must be picklable if ``workers`` is
    more than 1. Worker processes start once the work turns out to be long. Raises `DataError` for a missing source or
    folder, and what ``processor`` raises.
    """
    files = resolve_files(sources, allow_outside=allow_outside)
    check_folder(image_folder)
    total = sum(_estimate_rows(file) for file in files)
    builder = _ReportBuilder()
    for chunk, reports in check_chunks(
        _cut_into_chunks(files),
        RowChecker(image_folder, max_pixels, max_frames, allow_outside, processor),
        workers,
    ):
        for report in reports:
            builder.add(chunk.place, report)
        if progress:
            progress(builder.num_rows, max(total, builder.num_rows))
    return builder.build(tuple(sources))


def _estimate_rows(file: AbstractSource) -> int:
    try:
        return file.num_rows()
    except Exception:
        return 0  # reading the file reports the error


def _cut_into_chunks(files: Sequence[AbstractSource]) -> Iterator[RowChunk]:
    for file in files:
        rows: list[tuple[int, Any]] = []
        try:
            number = 0
            for number, row in _readers.read_rows(file):
                rows.append((number, row))
                if len(rows) == _ROWS_AT_ONCE:
                    yield RowChunk(file.place, file.folder, rows)
                    rows = []
            if number == 0:
                rows.append((0, "the file is empty (0 rows): it must hold at least one row"))
        except DataError as error:
            rows.append((0, str(error)))
        yield RowChunk(file.place, file.folder, rows)


class _ReportBuilder:
    """Counts the reports of rows as they arrive."""

    def __init__(self) -> None:
        self.num_rows = 0
        self._counts: Counter[str] = Counter()
        self._seconds = {"audio_seconds": 0.0, "video_seconds": 0.0}
        self._bad: list[BadRow] = []
        self._notes: Counter[str] = Counter()
        self._rows = RepeatFinder()
        self._lengths: dict[str, Counter[int]] = {}

    def add(self, place: str, report: RowReport) -> None:
        """Count one row of the file ``place``."""
        self.num_rows += report.row > 0
        if report.reason is not None:
            self._bad.append(BadRow(source=place, row=report.row, reason=report.reason))
            return
        self._counts.update(report.counts)
        for name, seconds in report.seconds.items():
            self._seconds[name] += seconds
        self._notes.update(report.notes)
        for unit, length in report.lengths.items():
            self._lengths.setdefault(unit, Counter())[length] += 1
        self._rows.add(report.digest, place, report.row)

    def build(self, sources: tuple[str, ...]) -> CheckReport:
        """The report on all rows. Nothing can be added afterwards."""
        num_repeats, repeats = self._rows.find(_NAMED_REPEATS)
        self._rows.close()
        return CheckReport(
            sources=sources,
            num_rows=self.num_rows,
            num_bad=len(self._bad),
            **{name: self._counts[name] for name in COUNTED},
            **{name: round(seconds, 3) for name, seconds in self._seconds.items()},
            num_repeats=num_repeats,
            repeats=repeats,
            lengths={unit: summarise_lengths(values) for unit, values in self._lengths.items()},
            notes=dict(self._notes.most_common()),
            bad=tuple(self._bad),
        )


def summarise_lengths(count_of: Mapping[int, int]) -> LengthSummary:
    """Mean, quantiles and a histogram of at least one length, each given with the number of rows that have it."""
    lengths = np.array(sorted(count_of))
    num_L = np.array([count_of[length] for length in lengths.tolist()])
    least, most = int(lengths[0]), int(lengths[-1])
    step = -(-(most - least + 1) // _BINS)
    counts, edges = np.histogram(lengths, bins=np.arange(least, most + step + 1, step), weights=num_L)
    reached_L = np.cumsum(num_L) / num_L.sum()
    ranks = lengths[np.searchsorted(reached_L, np.array(_QUANTILES) - 1e-12)]
    return LengthSummary(
        mean=round(float((lengths * num_L).sum() / num_L.sum()), 2),
        least=least,
        most=most,
        quantiles={str(share): int(value) for share, value in zip(_QUANTILES, ranks, strict=True)},
        edges=tuple(int(edge) for edge in edges),
        counts=tuple(int(count) for count in counts),
    )
