"""Allocations of one rank for every part, as near to something else as they get."""

from __future__ import annotations

import numpy as np

from marslora.core.allocation import RANK_OF_ZERO, Allocation
from marslora.strategies._problem import Problem


def find_nearest_uniform(problem: Problem, rank: int) -> Allocation:
    """The candidate whose log ranks are nearest to one rank for every part; the cheaper one of two as near."""

    def measure_distance(allocation: Allocation) -> float:
        return sum(float(np.log2(max(own, RANK_OF_ZERO) / max(rank, RANK_OF_ZERO)) ** 2) for _, own in allocation.ranks)

    return min(
        problem.allocations(),
        key=lambda allocation: (measure_distance(allocation), problem.count_parameters(allocation)),
    )


def match_uniform(problem: Problem, allocation: Allocation) -> Allocation:
    """One rank for every searched part, with as nearly the trainable parameters of ``allocation`` as possible."""
    wanted = problem.count_parameters(allocation)

    def make_uniform(rank: int) -> Allocation:
        return allocation.replace(**dict.fromkeys(problem.space.searched, rank))

    largest = max(problem.space.ladder(part)[-1] for part in problem.space.parts)
    return min(map(make_uniform, range(1, largest + 1)), key=lambda a: abs(problem.count_parameters(a) - wanted))
