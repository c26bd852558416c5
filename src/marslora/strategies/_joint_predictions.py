"""What the joint law predicts of every candidate's best point within a full run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from marslora.core.allocation import RANK_OF_ZERO, Allocation
from marslora.core.arrays import Array
from marslora.core.runs import Run
from marslora.core.schedule import FIRST_SHARE
from marslora.core.seeds import derive
from marslora.laws import RunCurve, fit_joint_law
from marslora.strategies._predictions import OWN_SHARE, Predictions
from marslora.strategies._problem import Problem
from marslora.strategies._runs import is_usable

NUM_DRAWS = 2000
"""Draws of the law. A probability of 0.95, at which `mars` ends early, then has a standard error of 0.005."""
MIN_CURVES = 2
"""With fewer measured allocations there is nothing to compare."""
MIN_POINTS = 2
"""A curve of fewer points has no slope."""


@lru_cache(maxsize=256)  # a search asks the same question again whenever it re-enacts its rounds
def predict_by_joint_law(problem: Problem, runs: tuple[Run, ...]) -> Predictions | None:
    """Draws of every candidate's lowest loss by the joint law of the runs; None if too little was measured."""
    curves = make_run_curves(problem, runs)
    if len(curves) < MIN_CURVES:
        return None
    x_CM = scale_log_ranks(problem, problem.allocations())
    rng = np.random.default_rng(derive(problem.seed, "joint law"))
    log_t = float(np.log(problem.full_examples))
    log_rows = float(np.log(problem.num_train))
    log_SC = fit_joint_law(curves).draw_losses(x_CM, log_t, log_rows, NUM_DRAWS, rng, OWN_SHARE)
    return Predictions(loss_C=np.exp(log_SC.mean(axis=0)), loss_SC=np.exp(log_SC), resolution=None)


def make_run_curves(problem: Problem, runs: Sequence[Run]) -> list[RunCurve]:
    """The furthest run of each candidate, without its very first points, in the law's coordinates."""
    begin = max(problem.batch_size, FIRST_SHARE * problem.full_examples)
    furthest: dict[Allocation, Run] = {}
    for run in sorted(filter(is_usable, runs), key=lambda run: run.last_examples):
        furthest[run.member.allocation] = run
    curves = []
    for allocation, run in furthest.items():
        seen = [(t, loss) for t, loss in zip(run.examples, run.validation_loss, strict=True) if t > begin and loss > 0]
        if len(seen) >= MIN_POINTS:
            log_N2 = np.log(np.array(seen, dtype=float))
            curves.append(RunCurve(scale_log_ranks(problem, [allocation])[0], log_N2[:, 0], log_N2[:, 1]))
    return curves


def scale_log_ranks(problem: Problem, allocations: Sequence[Allocation]) -> Array:
    """Log rank of each searched part, scaled so that its ladder runs from -1 to 1: (len(allocations), M)."""
    parts = problem.space.searched
    ladder_M2 = np.log2([[max(problem.space.ladder(p)[0], RANK_OF_ZERO), problem.space.ladder(p)[-1]] for p in parts])
    log_NM = np.log2([[max(allocation[part], RANK_OF_ZERO) for part in parts] for allocation in allocations])
    return np.asarray(2 * (log_NM - ladder_M2[:, 0]) / (ladder_M2[:, 1] - ladder_M2[:, 0]) - 1)
