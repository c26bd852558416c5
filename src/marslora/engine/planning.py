"""Plan a pack for the memory there is: how many members, in how many micro-batches, recomputed or not.

Splitting a step costs nearly nothing, so it comes first; then there are fewer members; recomputing, which takes a third
more time, comes last, for a model that cannot train on a single row without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from marslora.engine.memory import Footprint
from marslora.models.memory import PROCESSOR_ACTIVATIONS

PROCESSOR_TOKENS = 4096
"""The most tokens of all members in one batch on a CPU; with more, its caches overflow and packing gets slower
(benchmarks/packed_speed.py)."""


@dataclass(frozen=True)
class PackPlan:
    """How a step of a pack is computed. Its numbers do not depend on it, except for their rounding."""

    members: int
    """How many members train at once at most."""
    pieces: int
    """Micro-batches of a step."""
    recompute: bool = False
    """Whether layers are computed again in the backward instead of being kept."""

    def shrink(self, members: int, batch_size: int, *, may_split: bool) -> PackPlan | None:
        """What to try when memory ran out for ``members`` members; None if nothing smaller is left."""
        if may_split and self.pieces < batch_size:
            return PackPlan(self.members, min(2 * self.pieces, batch_size), self.recompute)
        if members > 1:
            return PackPlan(members // 2, self.pieces, self.recompute)
        return None if self.recompute else PackPlan(1, self.pieces, recompute=True)


@dataclass(frozen=True)
class Limits:
    """What a plan has to fit."""

    members: int
    """The most members that could train at once."""
    batch_size: int
    pieces: int
    """The fewest micro-batches of a step."""
    may_split: bool
    """Whether there may be more of them: dropout draws other masks then."""
    bytes: float
    """Memory for all members together."""
    on_cpu: bool
    row_tokens: int
    """Tokens of a row."""

    @property
    def most_members(self) -> int:
        """Members that could train at once if memory did not matter."""
        rows = -(-self.batch_size // self.pieces)
        fitting = PROCESSOR_TOKENS // (rows * self.row_tokens) if self.on_cpu else self.members
        return max(1, min(self.members, fitting))


def plan_pack(measure: Callable[[bool], Footprint], limits: Limits) -> PackPlan:
    """The plan with the most members that fits, with as few micro-batches as possible.

    ``measure`` returns what a member takes, with or without recomputing. If nothing fits, the smallest plan there is.
    """
    last = limits.batch_size if limits.may_split else limits.pieces
    for recompute in (False, True):
        footprint = measure(recompute)
        for members in range(limits.most_members, 0, -1):
            for pieces in range(limits.pieces, max(last, limits.pieces) + 1):
                if _fits(footprint, members, -(-limits.batch_size // pieces), limits, is_last=pieces >= last):
                    return PackPlan(members, pieces, recompute)
    return PackPlan(1, max(last, limits.pieces), recompute=True)


def _fits(footprint: Footprint, members: int, rows: int, limits: Limits, *, is_last: bool) -> bool:
    """Whether it fits, and on a CPU also whether splitting further would be of no use."""
    is_small = is_last or not limits.on_cpu or footprint.activations(rows, members) <= PROCESSOR_ACTIVATIONS
    return is_small and footprint.bytes(rows, members) <= limits.bytes
