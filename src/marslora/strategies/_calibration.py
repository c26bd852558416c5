"""What MARS measures: arms that adapt one part alone, joint runs of allocations, and how the budget is shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marslora.core.allocation import Allocation
from marslora.core.spec import MemberSpec
from marslora.strategies._base import Problem

ARM_SHARE, JOINT_SHARE = 0.5, 0.25
"""Shares of the budget for the arms and for the first joint runs; the rest extends the leaders."""


@dataclass(frozen=True)
class CalibrationPlan:
    """Lengths of all runs, in examples, such that together they cost the budget."""

    arm_short: int
    """An arm on the smaller data size, at every rank."""
    arm_long: int
    """An arm on the larger data size, at the largest rank."""
    joint: int
    extended: int


def plan(problem: Problem, cost: float, num_joint: int, num_extended: int) -> CalibrationPlan:
    """Share ``cost`` run equivalents (or the problem's budget) among arms, joint runs and extensions."""
    total = problem.budget if problem.budget is not None else cost
    parts = arm_parts(problem)
    num_short = sum(len(_ranks(problem, part)) for part in parts)
    num_long = len(parts)
    for_joint = total * (JOINT_SHARE if parts else JOINT_SHARE + ARM_SHARE)
    short = ARM_SHARE * total / max(num_short + 2 * num_long, 1)
    joint = for_joint / max(num_joint, 1)
    extended = joint + (1 - ARM_SHARE - JOINT_SHARE) * total / max(num_extended, 1)
    return CalibrationPlan(*(problem.examples(share) for share in (short, 2 * short, joint, extended)))


def arm_parts(problem: Problem) -> tuple[str, ...]:
    """The parts whose convergence is measured alone: the searched ones, where there are at least two to balance."""
    searched = tuple(part for part in problem.space.searched if len(_ranks(problem, part)) > 1)
    return searched if len(searched) > 1 else ()


def arms(problem: Problem, shares: Sequence[float], lengths: CalibrationPlan) -> list[MemberSpec]:
    """One member a rank and data size for each part alone. The larger one is measured at the largest rank only."""
    small, large = problem.rows(min(shares)), problem.rows(max(shares))
    members = {}
    for part in arm_parts(problem):
        full = Allocation.of({name: problem.space.ladder(name)[-1] for name in problem.space.parts})
        for rank in _ranks(problem, part):
            alone = full.replace(**{part: rank}).only(part)
            for rows, until, ranks in (
                (small, lengths.arm_short, _ranks(problem, part)),
                (large, lengths.arm_long, _ranks(problem, part)[-1:]),
            ):
                if rank in ranks:
                    member = problem.member(alone, rows, until, f"convergence of {part}")
                    members[member.id] = member
    return list(members.values())


def joint(problem: Problem, allocations: Sequence[Allocation], until: int) -> list[MemberSpec]:
    """One member an allocation, on all rows: the beginning of what a final run would be."""
    return [problem.member(allocation, problem.num_train, until, "joint run") for allocation in allocations]


def spread_out(candidates: Sequence[Allocation], first: Sequence[int], pool: Sequence[int], num: int) -> list[int]:
    """``num`` more of ``pool``, one after the other the furthest in log ranks from everything taken before."""
    log_rank_CM = np.log2([[max(rank, 0.5) for _, rank in allocation.ranks] for allocation in candidates])
    added: list[int] = []
    taken, left = list(first), [c for c in pool if c not in first]
    while left and len(added) < num:
        if taken:
            gap = np.abs(log_rank_CM[left][:, None] - log_rank_CM[taken][None]).sum(-1).min(1)
            best = left[int(gap.argmax())]
        else:
            best = left[0]
        taken.append(best)
        added.append(best)
        left.remove(best)
    return added


def neighbours(problem: Problem, allocation: Allocation) -> list[Allocation]:
    """The allocation and every candidate that is one step of one part's ladder away."""
    candidates, found = set(problem.candidates()), [allocation]
    for part in problem.space.searched:
        ladder = problem.space.ladder(part)
        place = ladder.index(allocation[part])
        found += [
            allocation.replace(**{part: rank})
            for rank in (*ladder[max(place - 1, 0) : place], *ladder[place + 1 : place + 2])
        ]
    return [each for each in found if each in candidates]


def _ranks(problem: Problem, part: str) -> tuple[int, ...]:
    return tuple(rank for rank in problem.space.ladder(part) if rank > 0)
