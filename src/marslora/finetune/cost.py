"""What a run costs: floating-point operations, counted on one batch and taken times the rows, and memory."""

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
    """Floating-point operations that a row costs; the rows of a run are taken to be alike."""

    trained: float = 0.0
    scored: float = 0.0


def count_flops(work: Callable[[], object]) -> float:
    """Floating-point operations of ``work``, which draws its random numbers aside: counting changes no run."""
    counter = FlopCounterMode(display=False)
    with torch.random.fork_rng(), counter:
        work()
    return float(counter.get_total_flops())


@dataclass
class SetupCost:
    """What an adapter costs before the first step: some look at batches, some decompose weights."""

    seconds: float = 0.0
    flops: float = 0.0


@contextlib.contextmanager
def count_setup_cost() -> Iterator[SetupCost]:
    """Counts what is done within it; the numbers are there afterwards."""
    setup, counter, began = SetupCost(), FlopCounterMode(display=False), time.monotonic()
    with counter:
        yield setup
    setup.seconds, setup.flops = time.monotonic() - began, float(counter.get_total_flops())


def forget_peak() -> None:
    """Let `peak_bytes` begin anew, where the machine can: on CUDA devices, and for processes of Linux."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most memory used since `forget_peak`: of the device where there is one, of this process otherwise."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
