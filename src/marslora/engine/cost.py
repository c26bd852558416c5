"""Time, memory and operations of a pack, shared out over its members."""

from __future__ import annotations

import resource
import sys
import time

import torch

from marslora.core.runs import Cost


class CostMeter:
    """What was spent since it was last read."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._flops = 0.0

    def add_flops(self, flops: float) -> None:
        """Operations that were counted or are known."""
        self._flops += flops

    @property
    def seconds(self) -> float:
        """Since it was last read."""
        return time.monotonic() - self._since

    def take(self) -> Cost:
        """Seconds and operations since the last time, and the memory at its highest; then start anew."""
        now = time.monotonic()
        cost = Cost(seconds=now - self._since, flops=self._flops, peak_bytes=peak_bytes())
        self._since, self._flops = now, 0.0
        return cost


def split_cost(cost: Cost, members: int) -> Cost:
    """An equal share of a cost; the peak is everybody's."""
    return Cost(seconds=cost.seconds / members, flops=cost.flops / members, peak_bytes=cost.peak_bytes)


def peak_bytes() -> int:
    """The most memory used so far: of the device where there is one, of this process otherwise."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
