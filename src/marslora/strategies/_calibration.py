"""What the MARS strategies measure, and how the budget is shared.

*Part runs* train one part alone, on few rows, and carry Law-C. *Candidate runs* train a whole candidate on all rows:
each is the beginning of what a final run would be, and carries Law-P and the joint law.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marslora.core.allocation import RANK_OF_ZERO, Allocation
from marslora.core.runs import Run
from marslora.core.spec import MemberSpec
from marslora.strategies._problem import Problem
from marslora.strategies._runs import is_usable

PART_SHARE, CANDIDATE_SHARE = 0.5, 0.25
"""Shares of the budget for part runs and for the first candidate runs; the rest extends the leaders.

A convention: half for the laws of the parts, and as much for beginning as for going on.
"""
LONG_FACTOR = 2
"""Part runs on the larger data size are this many times as long, because more rows take longer to learn."""


@dataclass(frozen=True)
class CalibrationPlan:
    """Lengths of all runs, in examples, such that together they cost the budget."""

    part_short: int
    """A part run on the smaller data size, at every rank."""
    part_long: int
    """A part run on the larger data size, at the largest rank."""
    candidate: int
    """A candidate run of the first round."""
    extended: int
    """A candidate run that is continued."""


def plan_calibration(problem: Problem, cost: float, num_candidates: int, num_extended: int) -> CalibrationPlan:
    """Share the problem's budget (or ``cost`` full runs) among part runs, candidate runs and their continuation."""
    total = problem.budget if problem.budget is not None else cost
    parts = select_parts_to_balance(problem)
    num_short = sum(len(_list_ranks(problem, part)) for part in parts)
    num_long = len(parts)
    for_candidates = total * (CANDIDATE_SHARE if parts else CANDIDATE_SHARE + PART_SHARE)
    short = PART_SHARE * total / max(num_short + LONG_FACTOR * num_long, 1)
    candidate = for_candidates / max(num_candidates, 1)
    extended = candidate + (1 - PART_SHARE - CANDIDATE_SHARE) * total / max(num_extended, 1)
    return CalibrationPlan(*(problem.examples(share) for share in (short, LONG_FACTOR * short, candidate, extended)))


def select_parts_to_balance(problem: Problem) -> tuple[str, ...]:
    """The parts whose convergence is measured alone: those with several ranks above 0, if there are at least two."""
    searched = tuple(part for part in problem.space.searched if len(_list_ranks(problem, part)) > 1)
    return searched if len(searched) > 1 else ()


def plan_part_runs(problem: Problem, shares: Sequence[float], lengths: CalibrationPlan) -> list[MemberSpec]:
    """A run for each part alone and rank on the smaller data size, and for its largest rank on the larger one too."""
    small, large = problem.rows(min(shares)), problem.rows(max(shares))
    members = {}
    for part in select_parts_to_balance(problem):
        full = Allocation.of({name: problem.space.ladder(name)[-1] for name in problem.space.parts})
        for rank in _list_ranks(problem, part):
            part_alone = full.replace(**{part: rank}).keep_only(part)
            for rows, until, ranks in (
                (small, lengths.part_short, _list_ranks(problem, part)),
                (large, lengths.part_long, _list_ranks(problem, part)[-1:]),
            ):
                if rank in ranks:
                    member = problem.member(
                        problem.at_middle_rate(part_alone), rows, until, f"convergence of {part}", validations="regular"
                    )
                    members[member.id] = member
    return list(members.values())


def plan_candidate_runs(problem: Problem, allocations: Sequence[Allocation], until: int) -> list[MemberSpec]:
    """A run of each allocation on all rows, until it has seen ``until`` examples."""
    settings = map(problem.at_middle_rate, allocations)
    return [
        problem.member(setting, problem.num_train, until, "candidate run", validations="regular")
        for setting in settings
    ]


def select_candidate_runs(problem: Problem, runs: Sequence[Run]) -> list[Run]:
    """The usable runs of whole candidates on all rows."""
    candidates = set(problem.candidates())
    return [
        run
        for run in runs
        if is_usable(run) and run.member.data_examples == problem.num_train and run.member.setting in candidates
    ]


def pick_distant(candidates: Sequence[Allocation], first: Sequence[int], pool: Sequence[int], num: int) -> list[int]:
    """``num`` more of ``pool``, one after the other the furthest in log ranks from everything picked before."""
    log_rank_CM = np.log2([[max(rank, RANK_OF_ZERO) for _, rank in allocation.ranks] for allocation in candidates])
    added: list[int] = []
    picked, left = list(first), [c for c in pool if c not in first]
    while left and len(added) < num:
        if picked:
            gap = np.abs(log_rank_CM[left][:, None] - log_rank_CM[picked][None]).sum(-1).min(1)
            best = left[int(gap.argmax())]
        else:
            best = left[0]
        picked.append(best)
        added.append(best)
        left.remove(best)
    return added


def list_neighbours(problem: Problem, allocation: Allocation) -> list[Allocation]:
    """The allocation and every candidate that is one step of one part's ladder away."""
    candidates, near = set(problem.allocations()), [allocation]
    for part in problem.space.searched:
        ladder = problem.space.ladder(part)
        place = ladder.index(allocation[part])
        near += [
            allocation.replace(**{part: rank})
            for rank in (*ladder[max(place - 1, 0) : place], *ladder[place + 1 : place + 2])
        ]
    return [each for each in near if each in candidates]


def _list_ranks(problem: Problem, part: str) -> tuple[int, ...]:
    return tuple(rank for rank in problem.space.ladder(part) if rank > 0)
