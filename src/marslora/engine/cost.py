"""Measure the time, memory and floating-point operations of a pack, and divide them among its members."""

from __future__ import annotations

import resource
import sys
import time

import torch

from marslora.core.runs import Cost


class CostMeter:
    """Adds up what has been spent since it was last read."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._flops = 0.0

    def add_flops(self, flops: float) -> None:
        """Add a number of floating-point operations."""
        self._flops += flops

    @property
    def seconds(self) -> float:
        """Seconds since it was last read."""
        return time.monotonic() - self._since

    def take(self) -> Cost:
        """Return seconds and operations since the last call and the peak of memory; then start again at zero."""
        now = time.monotonic()
        cost = Cost(seconds=now - self._since, flops=self._flops, peak_bytes=peak_bytes())
        self._since, self._flops = now, 0.0
        return cost


def split_cost(cost: Cost, members: int) -> Cost:
    """One of ``members`` equal shares of a cost; the peak of memory is not divided."""
    return Cost(seconds=cost.seconds / members, flops=cost.flops / members, peak_bytes=cost.peak_bytes)


def peak_bytes() -> int:
    """The largest number of bytes used so far: of the CUDA device if there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
