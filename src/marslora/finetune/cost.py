"""Measure what a run costs: memory, and floating-point operations, which are counted for one batch and scaled."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode


class FlopsPerRow(NamedTuple):
    """Floating-point operations per row, assumed to be equal for all rows of a run."""

    trained: float = 0.0
    """Operations of training on a row, forward and backward."""
    scored: float = 0.0
    """Operations of a row in validation or test."""


def count_flops(work: Callable[[], object]) -> float:
    """Run ``work`` and return its floating-point operations; torch's random state is as before afterwards."""
    counter = FlopCounterMode(display=False)
    with torch.random.fork_rng(), counter:
        work()
    return float(counter.get_total_flops())


@dataclass
class SetupCost:
    """What an adapter costs before the first step, e.g. to run batches or to decompose weights."""

    seconds: float = 0.0
    flops: float = 0.0


@contextlib.contextmanager
def count_setup_cost() -> Iterator[SetupCost]:
    """Measure the work within it: the yielded `SetupCost` is filled in at the end."""
    setup, counter, began = SetupCost(), FlopCounterMode(display=False), time.monotonic()
    with counter:
        yield setup
    setup.seconds, setup.flops = time.monotonic() - began, float(counter.get_total_flops())


def reset_peak_bytes() -> None:
    """Make `read_peak_bytes` start again, on CUDA devices and on Linux; elsewhere it does nothing."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def read_peak_bytes() -> int:
    """The most bytes used since `reset_peak_bytes`: of the CUDA device if there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
