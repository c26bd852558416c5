"""Allocations of one rank for every part, as near to something else as they get."""

from __future__ import annotations

import numpy as np

from marslora.core.allocation import RANK_OF_ZERO, Allocation
from marslora.core.decision import DecisionRecord
from marslora.core.setting import Setting
from marslora.strategies._problem import Problem

USUAL_RANK = 16
"""The rank that is trained beside a uniform choice: a common default of LoRA."""


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


def find_baseline(problem: Problem, decision: DecisionRecord) -> Setting | None:
    """The setting that a choice is compared with; None if it is the choice itself.

    It has one rank for every part, about as many trainable parameters, and the chosen learning rates. If that is the
    choice, it is the usual one: rank 16 everywhere, at the learning rate at which it is expected to end lowest.
    """
    uniform = match_uniform(problem, decision.chosen)
    if uniform != decision.chosen:
        return decision.setting.model_copy(update={"allocation": uniform})
    usual = find_nearest_uniform(problem, USUAL_RANK)
    if usual == decision.chosen:
        return None
    own = [
        (each.predicted_loss.value, each)
        for each in decision.candidates
        if each.allocation == usual and each.predicted_loss
    ]
    if not own:
        return decision.setting.model_copy(update={"allocation": usual})
    return min(own, key=lambda pair: pair[0])[1].setting
