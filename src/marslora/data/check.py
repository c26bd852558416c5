"""Read every row once and say what is there and what is wrong: pictures decoded, lengths measured, repeats found."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from marslora.core.errors import DataError
from marslora.core.record import Record
from marslora.data import _readers
from marslora.data._readers._base import AbstractFile
from marslora.data._row_checks import RowChecker, RowChunk, RowReport, check_chunks
from marslora.data.splits import BadRow

_ROWS_AT_ONCE = 16
_NAMED_REPEATS = 5
_BINS = 24
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
Progress = Callable[[int, int], None]
"""Called with (rows done, about how many rows in all)."""


class LengthSummary(Record):
    """How long rows are in one unit."""

    mean: float
    least: int
    most: int
    quantiles: dict[str, int]
    """By share: ``{"0.5": 210}`` says that half of the rows have at most 210."""
    edges: tuple[int, ...]
    """Of the histogram's bins, all equally wide: one more than ``counts``; a bin holds its first edge."""
    counts: tuple[int, ...]


class CheckReport(Record):
    """What a data set holds."""

    sources: tuple[str, ...]
    num_rows: int
    num_bad: int
    num_turns: int
    """Turns of users and assistants in good rows; the figures below are of good rows too."""
    num_images: int
    num_sounds: int
    audio_seconds: float
    num_repeats: int
    """Rows whose text, pictures and sounds have all been there before."""
    repeats: tuple[str, ...]
    """The first of them, at most 5, each with the row that it repeats."""
    lengths: dict[str, LengthSummary]
    """By unit: ``tokens`` and ``text tokens`` (without those of pictures and sounds) where a processor was given, else
    ``characters`` and ``words``."""
    bad: tuple[BadRow, ...]
    """Every bad row, in order; row 0 stands for the rest of a file that cannot be read on."""


def resolve_files(sources: Sequence[str]) -> list[AbstractFile]:
    """The files that the sources stand for. Raises `DataError` for one that does not exist."""
    return [file for source in sources for file in _readers.files(source, "train")]


def check(
    sources: Sequence[str],
    *,
    image_folder: str | None = None,
    processor: Callable[[], Any] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> CheckReport:
    """Read all rows of ``sources``, decode every picture and sound, and count.

    ``processor`` makes the model's processor, which measures lengths in tokens; it must be picklable where several
    ``workers`` (processes, started when the work turns out to be long) read. Raises `DataError` for a missing source.
    """
    files = resolve_files(sources)
    total = sum(_about(file) for file in files)
    tally = _ReportBuilder()
    for task, found in check_chunks(_tasks(files), RowChecker(image_folder, processor), workers):
        for one in found:
            tally.add(task.place, one)
        if progress:
            progress(tally.num_rows, max(total, tally.num_rows))
    return tally.report(tuple(sources))


def _about(file: AbstractFile) -> int:
    try:
        return file.num_rows()
    except DataError:
        return 0  # reading it will say why


def _tasks(files: Sequence[AbstractFile]) -> Iterator[RowChunk]:
    for file in files:
        rows: list[tuple[int, Any]] = []
        try:
            number = 0
            for number, row in file.rows():
                rows.append((number, row))
                if len(rows) == _ROWS_AT_ONCE:
                    yield RowChunk(file.place, file.folder, rows)
                    rows = []
            if number == 0:
                rows.append((0, "the file is empty: it must hold at least one row"))
        except DataError as error:
            rows.append((0, str(error)))
        yield RowChunk(file.place, file.folder, rows)


class _ReportBuilder:
    """Counts judgements as they come."""

    def __init__(self) -> None:
        self.num_rows = 0
        self._turns = self._images = self._sounds = self._repeats = 0
        self._seconds = 0.0
        self._bad: list[BadRow] = []
        self._named_repeats: list[str] = []
        self._first: dict[bytes, tuple[str, int]] = {}
        self._lengths: dict[str, array[int]] = {}

    def add(self, place: str, one: RowReport) -> None:
        """Count one row."""
        self.num_rows += one.row > 0
        if one.reason is not None:
            self._bad.append(BadRow(source=place, row=one.row, reason=one.reason))
            return
        self._turns += one.turns
        self._images += one.images
        self._sounds += one.sounds
        self._seconds += one.seconds
        for unit, length in one.lengths.items():
            self._lengths.setdefault(unit, array("q")).append(length)
        first = self._first.setdefault(one.digest, (place, one.row))
        if first != (place, one.row):
            self._repeats += 1
            if len(self._named_repeats) < _NAMED_REPEATS:
                self._named_repeats.append(f"{place} row {one.row} repeats {first[0]} row {first[1]}")

    def report(self, sources: tuple[str, ...]) -> CheckReport:
        """All that was counted."""
        return CheckReport(
            sources=sources,
            num_rows=self.num_rows,
            num_bad=len(self._bad),
            num_turns=self._turns,
            num_images=self._images,
            num_sounds=self._sounds,
            audio_seconds=round(self._seconds, 3),
            num_repeats=self._repeats,
            repeats=tuple(self._named_repeats),
            lengths={unit: summarise_lengths(values) for unit, values in self._lengths.items()},
            bad=tuple(self._bad),
        )


def summarise_lengths(values: Sequence[int]) -> LengthSummary:
    """Quantiles and a histogram of at least one length."""
    found = np.asarray(values)
    least, most = int(found.min()), int(found.max())
    step = -(-(most - least + 1) // _BINS)
    counts, edges = np.histogram(found, bins=np.arange(least, most + step + 1, step))
    ranks = np.quantile(found, _QUANTILES, method="inverted_cdf")
    return LengthSummary(
        mean=round(float(found.mean()), 2),
        least=least,
        most=most,
        quantiles={str(share): int(value) for share, value in zip(_QUANTILES, ranks, strict=True)},
        edges=tuple(int(edge) for edge in edges),
        counts=tuple(int(count) for count in counts),
    )
