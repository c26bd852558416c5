"""Check rows a few at a time, in this process or, if that takes long, in several.

The first chunks are always checked in this process: a small file is finished before others would have started. Other
processes start once this one has worked for as long as they would need to start and to load the processor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marslora.core.errors import DataError
from marslora.core.spec import MAX_FRAMES, MAX_PIXELS
from marslora.data._media_cache import MediaCaches
from marslora.data.sounds import Sound
from marslora.data.splits import BadRow, explain_exception, read_example

if TYPE_CHECKING:
    from marslora.data._example import Example, Medium
    from marslora.data._lengths import LengthCounter

_START_SECONDS = 2.0
"""Other processes take at least about this long to start (Python with its imports)."""

_MOST_FILES = 1 << 16
"""Decoded files that are remembered, so that memory does not grow with their number."""
COUNTED = ("num_turns", "num_images", "num_sounds", "num_videos", "num_frames")
"""What is counted in good rows."""


@dataclass(frozen=True)
class RowChunk:
    """A few rows of one file: what one call of a `RowChecker` takes."""

    place: str
    """The file's name in messages."""
    folder: Path
    """Where relative paths in the rows start."""
    rows: list[tuple[int, dict[str, Any] | str]]
    """(number, row or the reason why it could not be read)."""


@dataclass(frozen=True)
class RowReport:
    """One row: why it is bad, or what it holds."""

    row: int
    reason: str | None = None
    """Why the row is bad; None for a good one."""
    digest: bytes = b""
    counts: dict[str, int] = field(default_factory=dict)
    """By name of `COUNTED`; what there is none of is left out."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of all its sounds, and of all its videos, if it has any."""
    notes: tuple[str, ...] = ()
    """What of the row was not read, or is changed."""
    lengths: dict[str, int] = field(default_factory=dict)
    """By unit: tokens, words, ..."""


CheckedChunk = tuple[RowChunk, list[RowReport]]
"""A chunk with a report for each of its rows, in order."""


@dataclass
class RowChecker:
    """Checks rows: reads them, decodes their media, measures them. Picklable if ``processor`` is."""

    image_folder: str | None = None
    max_pixels: int = MAX_PIXELS
    max_frames: int = MAX_FRAMES
    allow_outside: bool = False
    processor: Callable[[], Any] | None = None
    """Makes the processor that measures lengths in tokens; None: lengths are characters and words."""
    _problems: dict[Path, str | None] = field(default_factory=dict)
    """The last files that were decoded, and what was wrong with them: many rows name the same picture."""

    def __call__(self, chunk: RowChunk) -> list[RowReport]:
        """A report for every row, in order."""
        allowed = self.allow_outside
        caches = MediaCaches(self.image_folder, self.max_pixels, self.max_frames, allow_outside=allowed)
        cache = caches.get(chunk.folder, chunk.place)
        return [self._check_row(number, read_example(row, cache, chunk.place, number)) for number, row in chunk.rows]

    def _check_row(self, number: int, example: Example | BadRow) -> RowReport:
        if isinstance(example, BadRow):
            return RowReport(number, example.reason)
        counter = self._length_counter  # a processor that cannot be loaded is no fault of the row
        try:
            for medium in example.media:
                self._check_medium(medium)
            lengths, notes = counter.count_tokens(example) if counter else (count_words(example), ())
            return RowReport(
                row=number,
                digest=bytes.fromhex(example.digest),
                counts=count_contents(example),
                notes=(*example.notes, *notes),
                seconds=sum_seconds(example),
                lengths=lengths,
            )
        except DataError as error:
            return RowReport(number, str(error))
        except MemoryError:
            raise
        except Exception as error:  # decoders and processors may raise anything: it is the reason of this row
            return RowReport(number, explain_exception(error))

    @cached_property
    def _length_counter(self) -> LengthCounter | None:
        if self.processor is None:
            return None
        from marslora.data._lengths import LengthCounter  # loads torch

        return LengthCounter(self.processor())

    def _check_medium(self, medium: Medium) -> None:
        """Decode a picture, sound or video completely. Raises `DataError` if that fails.

        Each of the last `_MOST_FILES` files is decoded once.
        """
        path = medium.source if isinstance(medium.source, Path) else None
        if path is None:
            return _decode(medium)
        if path not in self._problems:
            if len(self._problems) >= _MOST_FILES:
                del self._problems[next(iter(self._problems))]
            self._problems[path] = None
            try:
                _decode(medium)
            except DataError as error:
                self._problems[path] = str(error)
        if (problem := self._problems[path]) is not None:
            raise DataError(problem)
        return None


def _decode(medium: Medium) -> None:
    if isinstance(medium, Sound):
        medium.open(medium.length[1])
    else:
        medium.open()


def count_contents(example: Example) -> dict[str, int]:
    """How many turns, pictures, sounds, videos and frames of videos a row has."""
    counts = {
        "num_turns": sum(message["role"] != "system" for message in example.messages),
        "num_images": len(example.images),
        "num_sounds": len(example.sounds),
        "num_videos": len(example.videos),
        "num_frames": sum(video.header.num_frames for video in example.videos),
    }
    return {name: count for name, count in counts.items() if count}


def sum_seconds(example: Example) -> dict[str, float]:
    """The duration of all sounds, and of all videos of a row; what it has none of is left out."""
    seconds = {
        "audio_seconds": sum(sound.seconds for sound in example.sounds),
        "video_seconds": sum(video.header.seconds for video in example.videos),
    }
    return {name: value for name, value in seconds.items() if value}


def count_words(example: Example) -> dict[str, int]:
    """``characters`` and ``words`` of a row's texts: its length if there is no processor."""
    texts = [part["text"] for message in example.messages for part in message["content"] if part["type"] == "text"]
    return {"characters": sum(map(len, texts)), "words": sum(len(text.split()) for text in texts)}


def check_chunks(chunks: Iterator[RowChunk], checker: RowChecker, workers: int) -> Iterator[CheckedChunk]:
    """Every chunk with its reports, in order; by ``workers`` processes once the work turns out to be long."""
    started, patience = time.monotonic(), math.inf
    for chunk in chunks:
        yield chunk, checker(chunk)
        seconds = time.monotonic() - started
        if patience == math.inf:  # the first chunk loads the processor, as every other process would have to
            patience = seconds + max(seconds, _START_SECONDS)
        elif workers > 1 and seconds > patience:
            break
    for chunk in chunks:
        yield from _check_in_processes(chain([chunk], chunks), checker, workers)


def _check_in_processes(chunks: Iterator[RowChunk], checker: RowChecker, workers: int) -> Iterator[CheckedChunk]:
    context = multiprocessing.get_context("spawn")
    fresh = dataclasses.replace(checker, _problems={})
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(fresh,))
    waiting: deque[tuple[RowChunk, Future[list[RowReport]]]] = deque()
    try:
        with _ignore_interrupts():  # each of the first chunks starts a process
            waiting.extend((chunk, pool.submit(_check_in_worker, chunk)) for chunk in islice(chunks, workers))
        for chunk in chunks:
            waiting.append((chunk, pool.submit(_check_in_worker, chunk)))
            if len(waiting) > 2 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Processes started within ignore Ctrl-C from their first moment on: the process that started them ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_worker_checker: RowChecker | None = None
"""The checker of a worker process, set when the process starts; always None in the process that started it."""


def _start_worker(checker: RowChecker) -> None:
    global _worker_checker
    _worker_checker = checker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # every core has a process already


def _check_in_worker(chunk: RowChunk) -> list[RowReport]:
    assert _worker_checker is not None
    return _worker_checker(chunk)
