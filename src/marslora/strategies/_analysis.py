"""All that follows from the runs: laws, balance, outlook, choice. Pure, so repeated questions are remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from marslora.core.allocation import Allocation
from marslora.core.decision import ClosedForm, LawFit
from marslora.core.runs import Run
from marslora.core.seeds import derive
from marslora.laws import convergence, performance
from marslora.strategies._balance import Balance, balance, closed_forms
from marslora.strategies._base import Problem, usable
from marslora.strategies._calibration import arm_parts
from marslora.strategies._choice import Choice, choose
from marslora.strategies._predictions import Predictions, outlook

SHARES = (0.9, 0.75, 0.5)
"""Shares of the way to the floor that may define convergence: the largest that most arms of every part reached."""
REACHED = 0.6
CONTRADICTION = 0.9
"""The pruning by balance is lifted where a dropped allocation beats every balanced one with so much probability."""


@dataclass(frozen=True)
class Analysis:
    """What the runs imply for C candidates."""

    candidates: tuple[Allocation, ...]
    share: float
    """The share of the way to the floor that counted as converged."""
    times: dict[str, LawFit]
    """Law-C of each part that has arms."""
    closed_forms: tuple[ClosedForm, ...]
    balance: Balance | None
    kept_C: NDArray[np.bool_]
    law: LawFit
    outlook: Predictions | None
    choice: Choice | None
    lifted: bool
    """The data contradicted the balance hypothesis, so every candidate was considered."""


@lru_cache(maxsize=64)
def study(
    problem: Problem,
    runs: tuple[Run, ...],
    tolerance: float,
    indifference: float,
    predict_jointly: Predictions | None = None,
    *,
    fit_laws: bool = True,
) -> Analysis:
    """The study of runs. ``tolerance``: ratio of times that counts as balanced; ``indifference``: a relative loss.

    With a ``predict_jointly`` every candidate is judged by it; without one the balanced are, by Law-P. Without
    ``fit_laws`` there is nothing but the joint outlook.
    """
    candidates = problem.candidates()
    alone = tuple(run for run in runs if fit_laws and len(run.member.allocation.active) == 1)
    times, share = convergence_laws(problem, alone) if alone else ({}, SHARES[-1])
    balanced = None
    if times and all(law.status != "failed" for law in times.values()):
        balanced = balance(candidates, times, problem.num_train, derive(problem.seed, "balance"))
    prunes = balanced is not None and predict_jointly is None
    kept_C = balanced.balanced(np.log(tolerance)) if balanced and prunes else np.ones(len(candidates), dtype=bool)
    law, losses = _performance(problem, runs if fit_laws else (), balanced)
    losses = predict_jointly or losses
    choice, lifted = _choice(problem, losses, kept_C, indifference) if losses else (None, False)
    return Analysis(
        candidates=candidates,
        share=share,
        times=times,
        closed_forms=closed_forms(problem.space, times, problem.num_train),
        balance=balanced,
        kept_C=kept_C,
        law=law,
        outlook=losses,
        choice=choice,
        lifted=lifted,
    )


@lru_cache(maxsize=64)
def convergence_laws(problem: Problem, runs: tuple[Run, ...]) -> tuple[dict[str, LawFit], float]:
    """Law-C of each part with arms, at the largest share of the way that most of its arms reached; and that share."""
    parts = arm_parts(problem)
    arms = {part: [run for run in runs if run.member.allocation.active == (part,) and usable(run)] for part in parts}
    points, share = {}, SHARES[-1]
    for share in SHARES:
        points = {part: convergence.points_of(arms[part], part, share, problem.full_examples) for part in parts}
        if all(sum(not point.censored for point in found) >= REACHED * len(found) for found in points.values()):
            break
    law = convergence.ConvergenceLaw()
    return {part: law.fit(points[part], part, derive(problem.seed, "convergence", part)) for part in parts}, share


def _performance(problem: Problem, runs: Sequence[Run], balanced: Balance | None) -> tuple[LawFit, Predictions | None]:
    """Law-P on all joint runs, and what it predicts of every candidate in a full run."""
    candidates = problem.candidates()
    mismatch = None
    if balanced is not None:
        mismatch = dict(zip(candidates, map(float, balanced.mismatch_C), strict=True))
    params = {allocation: float(problem.count_parameters(allocation)) for allocation in candidates}
    joint = joint_runs(problem, runs)
    least = max(min((run.last_examples for run in joint), default=0) / 8, problem.batch_size)
    searched = problem.space.searched
    points = performance.points_of(joint, mismatch, params, least, searched)
    law = performance.PerformanceLaw().fit(points, "allocation", derive(problem.seed, "performance"))
    if law.status == "failed":
        return law, None
    inputs = [
        performance.inputs_of(
            allocation, problem.full_examples, (mismatch or {}).get(allocation), params[allocation], searched
        )
        for allocation in candidates
    ]
    return law, outlook(law, candidates, inputs, derive(problem.seed, "outlook"))


def _choice(
    problem: Problem, losses: Predictions, kept_C: NDArray[np.bool_], indifference: float
) -> tuple[Choice, bool]:
    """The choice among the balanced, or among all where the data contradict the balance."""
    lifted = False
    if not kept_C.all():
        ahead_S = losses.loss_SC[:, ~kept_C].min(1) < losses.loss_SC[:, kept_C].min(1)
        lifted = bool(ahead_S.mean() >= CONTRADICTION)
    cost_C = [problem.count_parameters(allocation) for allocation in problem.candidates()]
    nats = indifference * float(losses.loss_C.min())
    return choose(losses.loss_SC, np.ones_like(kept_C) if lifted else kept_C, cost_C, losses.noise, nats), lifted


def joint_runs(problem: Problem, runs: Sequence[Run]) -> list[Run]:
    """The usable runs of whole candidates on all rows."""
    candidates = set(problem.candidates())
    return [
        run
        for run in runs
        if usable(run) and run.member.data_examples == problem.num_train and run.member.allocation in candidates
    ]
