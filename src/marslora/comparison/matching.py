"""Make methods equal: scale a method's ranks in their own proportions, or the number of examples it trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marslora.core.allocation import Allocation
from marslora.core.comparison import ComparisonSpec, FixedRanks, MethodSpec, Recipe
from marslora.core.errors import ConfigError
from marslora.core.parts import ModelInfo

RUNGS = 256
"""The largest rank that is tried to make parameters equal. A convention: larger ranks are hardly low-rank."""


def choose_ranks(recipe: Recipe, entry: MethodSpec, spec: ComparisonSpec) -> Any:
    """The ranks of a method before it is made equal: those of its entry, else the common ones, else the recipe's.

    Common ranks do not replace those of a recipe with a rank for each part, which is a recipe for choosing ranks.
    """
    if entry.ranks is not None:
        return entry.ranks
    return recipe.ranks if spec.ranks is None or not isinstance(recipe.ranks, int) else spec.ranks


def make_allocation(ranks: FixedRanks, info: ModelInfo, full: Sequence[str] = ()) -> Allocation:
    """The allocation of a model at ``ranks``. A single rank is for every part with linears that is not trained whole.

    Parts that no gradient reaches get rank 0. Raises `ConfigError` for a part that the model does not have, or if no
    part is adapted.
    """
    if isinstance(ranks, Mapping):
        for part in ranks:
            info.part(part)
        by_part = {part: rank for part, rank in ranks.items() if part not in full}
    else:
        by_part = {part.name: ranks for part in info.parts if part.linears and part.name not in full}
    reached = {part: 0 if part in info.unreached else rank for part, rank in by_part.items()}
    allocation = Allocation.parse(reached, "`ranks`")
    if not allocation.active:
        raise ConfigError(
            f"`ranks` must adapt at least one part of {info.architecture} that is not trained whole and that "
            f"gradients reach, found {ranks}. Give a part a rank above 0."
        )
    return allocation


def build_proportional_ladder(shape: Allocation, num_rungs: int = RUNGS) -> tuple[Allocation, ...]:
    """Allocations in the proportions of ``shape``; in the k-th of them (from 1) the largest rank is k.

    Ranks are rounded; a part that has a rank in ``shape`` keeps at least rank 1.
    """
    largest = max(rank for _, rank in shape.ranks)

    def at(rank: int, top: int) -> int:
        return max(1, round(rank * top / largest)) if rank else 0

    return tuple(
        Allocation(ranks=tuple((part, at(rank, top)) for part, rank in shape.ranks)) for top in range(1, num_rungs + 1)
    )


def find_nearest(counts: Sequence[int], wanted: int) -> int:
    """The index of the count nearest to ``wanted``; the first one if several are equally near."""
    return min(range(len(counts)), key=lambda index: abs(counts[index] - wanted))


def convert_flops_to_examples(flops: float, flops_per_row: float, batch_size: int) -> int:
    """The number of examples whose training takes about ``flops`` operations, in whole batches and at least one."""
    return max(1, round(flops / flops_per_row / batch_size)) * batch_size
