"""Rows judged a few at a time, in this process or, where that takes long, in several."""

from __future__ import annotations

import contextlib
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
from marslora.data.pictures import Picture
from marslora.data.sounds import Sound
from marslora.data.splits import BadRow, MediaCaches, read_example

if TYPE_CHECKING:
    from marslora.data._example import Example
    from marslora.data._lengths import LengthCounter

_PATIENCE_SECONDS = 2.0
"""Other processes take at least about this long to start."""


@dataclass(frozen=True)
class RowChunk:
    """A few rows of one file."""

    place: str
    folder: Path
    rows: list[tuple[int, dict[str, Any] | str]]


@dataclass(frozen=True)
class RowReport:
    """One row: why it is bad, or what it holds."""

    row: int
    reason: str | None = None
    digest: bytes = b""
    turns: int = 0
    images: int = 0
    sounds: int = 0
    seconds: float = 0.0
    lengths: dict[str, int] = field(default_factory=dict)


@dataclass
class RowChecker:
    """Judges rows. Picklable where ``processor`` is."""

    image_folder: str | None = None
    processor: Callable[[], Any] | None = None
    _opened: dict[Path, str | None] = field(default_factory=dict)

    def __call__(self, task: RowChunk) -> list[RowReport]:
        """A judgement of every row, in order."""
        cache = MediaCaches(self.image_folder).get(task.folder)
        return [self._check_row(number, read_example(row, cache, task.place, number)) for number, row in task.rows]

    def _check_row(self, number: int, found: Example | BadRow) -> RowReport:
        if isinstance(found, BadRow):
            return RowReport(number, found.reason)
        try:
            for one in found.pictures_and_sounds:
                self._open(one)
            return RowReport(
                row=number,
                digest=bytes.fromhex(found.digest),
                turns=sum(message["role"] != "system" for message in found.messages),
                images=len(found.images),
                sounds=len(found.sounds),
                seconds=sum(sound.seconds for sound in found.sounds),
                lengths=self._length_counter.count_tokens(found) if self._length_counter else count_words(found),
            )
        except DataError as error:
            return RowReport(number, str(error))

    @cached_property
    def _length_counter(self) -> LengthCounter | None:
        if self.processor is None:
            return None
        from marslora.data._lengths import LengthCounter  # loads torch

        return LengthCounter(self.processor())

    def _open(self, one: Picture | Sound) -> None:
        """Decode it whole; what lies in a file only once."""
        path = one.source if isinstance(one.source, Path) else None
        if path is None:
            return _decode(one)
        if path not in self._opened:
            self._opened[path] = None
            try:
                _decode(one)
            except DataError as error:
                self._opened[path] = str(error)
        if (problem := self._opened[path]) is not None:
            raise DataError(problem)
        return None


def _decode(one: Picture | Sound) -> None:
    if isinstance(one, Picture):
        one.open()
    else:
        one.open(one.length[1])


def count_words(example: Example) -> dict[str, int]:
    """How long the texts are, without a processor."""
    texts = [part["text"] for message in example.messages for part in message["content"] if part["type"] == "text"]
    return {"characters": sum(map(len, texts)), "words": sum(len(text.split()) for text in texts)}


def check_chunks(
    tasks: Iterator[RowChunk], judge: RowChecker, workers: int
) -> Iterator[tuple[RowChunk, list[RowReport]]]:
    """Every task with its judgements, in order."""
    started, patience = time.monotonic(), math.inf
    for task in tasks:
        yield task, judge(task)
        seconds = time.monotonic() - started
        if patience == math.inf:  # the first one loads the processor, as every other process would have to
            patience = seconds + max(seconds, _PATIENCE_SECONDS)
        elif workers > 1 and seconds > patience:
            break
    for task in tasks:
        yield from _check_in_processes(chain([task], tasks), judge, workers)


def _check_in_processes(
    tasks: Iterator[RowChunk], judge: RowChecker, workers: int
) -> Iterator[tuple[RowChunk, list[RowReport]]]:
    context = multiprocessing.get_context("spawn")
    fresh = RowChecker(judge.image_folder, judge.processor)
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(fresh,))
    waiting: deque[tuple[RowChunk, Future[list[RowReport]]]] = deque()
    try:
        with _ignore_interrupts():  # each of the first tasks starts a process
            waiting.extend((task, pool.submit(_check_in_worker, task)) for task in islice(tasks, workers))
        for task in tasks:
            waiting.append((task, pool.submit(_check_in_worker, task)))
            if len(waiting) > 2 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Processes started within ignore Ctrl-C, from their first moment on: the process that started them ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_worker_checker: RowChecker | None = None


def _start_worker(judge: RowChecker) -> None:
    global _worker_checker
    _worker_checker = judge
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # every core has a process already


def _check_in_worker(task: RowChunk) -> list[RowReport]:
    assert _worker_checker is not None
    return _worker_checker(task)
