"""All that follows from the runs: laws, predicted times, predicted losses, choice.

Everything is a pure function of the problem and the runs, so questions that are asked again are answered from a cache.
"""

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
from marslora.laws import ConvergenceLaw, PerformanceLaw, convergence, performance
from marslora.strategies._calibration import select_candidate_runs, select_parts_to_balance
from marslora.strategies._choice import Choice, choose_candidate
from marslora.strategies._convergence_times import PredictedTimes, predict_times, solve_closed_forms
from marslora.strategies._performance_predictions import predict_by_performance_law
from marslora.strategies._predictions import Predictions
from marslora.strategies._problem import Problem
from marslora.strategies._runs import is_usable

CONVERGED_SHARES = (0.9, 0.75, 0.5)
"""Shares of the way to the floor that may define convergence: the largest that most runs of every part reached.

0.9 is the convention of the laws; short calibrations do not get there, and half of the way is the least that says
anything about the whole."""
MOST_RUNS = 0.6
"""Share of a part's runs that counts as most in `CONVERGED_SHARES`. A convention: more than half, with a margin."""
CONTRADICTION = 0.9
"""Nothing is dropped for imbalance if a dropped allocation beats every balanced one with at least this probability."""
LOOK_FROM = 8
"""Law-P is fitted to losses from this fraction (1/8) of the shortest candidate run on: earlier ones are warm-up."""


@dataclass(frozen=True)
class Analysis:
    """What the runs imply for C candidates."""

    candidates: tuple[Allocation, ...]
    share: float
    """The share of the way to the floor that counted as converged."""
    convergence_laws: dict[str, LawFit]
    """Law-C of each part that has runs of its own."""
    closed_forms: tuple[ClosedForm, ...]
    predicted_times: PredictedTimes | None
    """None without a law for every part."""
    kept_C: NDArray[np.bool_]
    """Whether a candidate is balanced; all are if nothing is dropped for imbalance."""
    performance_law: LawFit
    predictions: Predictions | None
    choice: Choice | None
    is_contradicted: bool
    """Whether the runs contradicted the balance hypothesis, so that every candidate was considered."""


@lru_cache(maxsize=64)
def analyse_runs(
    problem: Problem,
    runs: tuple[Run, ...],
    tolerance: float,
    indifference: float,
    predictions: Predictions | None = None,
    *,
    fit_laws: bool = True,
) -> Analysis:
    """Fit the laws and choose.

    Args:
        problem: What is searched.
        runs: What was measured.
        tolerance: Ratio of convergence times that counts as balanced.
        indifference: Relative loss that a cheaper candidate may cost.
        predictions: Those of the joint law: every candidate is then judged by them. Without, only balanced ones are
            considered, and Law-P predicts their losses.
        fit_laws: Whether Law-C and Law-P are fitted at all.
    """
    candidates = problem.allocations()
    part_runs = tuple(run for run in runs if fit_laws and len(run.member.allocation.active) == 1)
    laws, share = fit_convergence_laws(problem, part_runs) if part_runs else ({}, CONVERGED_SHARES[-1])
    times = None
    if laws and all(law.status != "failed" for law in laws.values()):
        times = predict_times(candidates, laws, problem.num_train, derive(problem.seed, "balance"))
    prunes = times is not None and predictions is None
    kept_C = times.select_balanced(np.log(tolerance)) if times and prunes else np.ones(len(candidates), dtype=bool)
    performance_law, by_law = _fit_performance_law(problem, runs if fit_laws else (), times)
    predictions = predictions or by_law
    choice, is_contradicted = _choose(problem, predictions, kept_C, indifference) if predictions else (None, False)
    return Analysis(
        candidates=candidates,
        share=share,
        convergence_laws=laws,
        closed_forms=solve_closed_forms(problem.space, laws, problem.num_train),
        predicted_times=times,
        kept_C=kept_C,
        performance_law=performance_law,
        predictions=predictions,
        choice=choice,
        is_contradicted=is_contradicted,
    )


@lru_cache(maxsize=64)
def fit_convergence_laws(problem: Problem, runs: tuple[Run, ...]) -> tuple[dict[str, LawFit], float]:
    """Law-C of each part with part runs, and the share of the way to the floor that counted as converged."""
    parts = select_parts_to_balance(problem)
    by_part = {part: [r for r in runs if r.member.allocation.active == (part,) and is_usable(r)] for part in parts}
    points, share = {}, CONVERGED_SHARES[-1]
    for share in CONVERGED_SHARES:
        points = {part: convergence.make_points(by_part[part], part, share, problem.full_examples) for part in parts}
        if all(sum(not point.censored for point in own) >= MOST_RUNS * len(own) for own in points.values()):
            break
    law = ConvergenceLaw()
    return {part: law.fit(points[part], part, derive(problem.seed, "convergence", part)) for part in parts}, share


def _fit_performance_law(
    problem: Problem, runs: Sequence[Run], times: PredictedTimes | None
) -> tuple[LawFit, Predictions | None]:
    """Law-P on all candidate runs, and what it predicts of every candidate in a full run."""
    candidates = problem.allocations()
    imbalance = None
    if times is not None:
        imbalance = dict(zip(candidates, map(float, times.imbalance_C), strict=True))
    params = {allocation: float(problem.count_parameters(allocation)) for allocation in candidates}
    candidate_runs = select_candidate_runs(problem, runs)
    shortest = min((run.last_examples for run in candidate_runs), default=0)
    least = max(shortest / LOOK_FROM, problem.batch_size)
    searched = problem.space.searched
    points = performance.make_points(candidate_runs, imbalance, params, least, searched)
    law = PerformanceLaw().fit(points, "allocation", derive(problem.seed, "performance"))
    if law.status == "failed":
        return law, None
    inputs = [
        performance.make_inputs(
            allocation, problem.full_examples, (imbalance or {}).get(allocation), params[allocation], searched
        )
        for allocation in candidates
    ]
    return law, predict_by_performance_law(law, candidates, inputs, derive(problem.seed, "outlook"))


def _choose(
    problem: Problem, predictions: Predictions, kept_C: NDArray[np.bool_], indifference: float
) -> tuple[Choice, bool]:
    """The choice among the balanced candidates, or among all if the runs contradict the balance hypothesis."""
    is_contradicted = False
    if not kept_C.all():
        ahead_S = predictions.loss_SC[:, ~kept_C].min(1) < predictions.loss_SC[:, kept_C].min(1)
        is_contradicted = bool(ahead_S.mean() >= CONTRADICTION)
    cost_C = [problem.count_parameters(allocation) for allocation in problem.allocations()]
    nats = indifference * float(predictions.loss_C.min())
    eligible_C = np.ones_like(kept_C) if is_contradicted else kept_C
    choice = choose_candidate(predictions.loss_SC, eligible_C, cost_C, nats, predictions.resolution)
    return choice, is_contradicted
