"""Making methods equal: ranks in a method's own proportions, and how many examples a budget of operations pays for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from marslora.core.allocation import Allocation
from marslora.core.comparison import FixedRanks
from marslora.core.errors import ConfigError
from marslora.core.parts import ModelInfo

RUNGS = 256


def allocation_of(ranks: FixedRanks, info: ModelInfo, full: Sequence[str] = ()) -> Allocation:
    """What ``ranks`` mean for a model: one number is for every part with linears that is not trained whole."""
    if isinstance(ranks, Mapping):
        for part in ranks:
            info.part(part)
        found = {part: rank for part, rank in ranks.items() if part not in full}
    else:
        found = {part.name: ranks for part in info.parts if part.linears and part.name not in full}
    allocation = Allocation.parse(found, "`ranks`")
    if not allocation.active:
        raise ConfigError(f"`ranks` must adapt at least one part of {info.architecture}, found {ranks}.")
    return allocation


def ladder(shape: Allocation, num_rungs: int = RUNGS) -> tuple[Allocation, ...]:
    """Allocations in the proportions of ``shape``: on the k-th its largest part has rank k.

    Ranks are rounded, and at least 1 where ``shape`` has any.
    """
    largest = max(rank for _, rank in shape.ranks)

    def at(rank: int, top: int) -> int:
        return max(1, round(rank * top / largest)) if rank else 0

    return tuple(
        Allocation(ranks=tuple((part, at(rank, top)) for part, rank in shape.ranks)) for top in range(1, num_rungs + 1)
    )


def nearest(counts: Sequence[int], wanted: int) -> int:
    """Where the count nearest to ``wanted`` stands; the first of several."""
    return min(range(len(counts)), key=lambda index: abs(counts[index] - wanted))


def examples_for(flops: float, flops_per_row: float, batch_size: int) -> int:
    """Examples, in whole batches, whose training costs about ``flops`` floating-point operations; at least a batch."""
    return max(1, round(flops / flops_per_row / batch_size)) * batch_size
