"""What the joint law says of every candidate's best point within a full run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from marslora.core.allocation import Allocation
from marslora.core.runs import Run
from marslora.core.schedule import FIRST_SHARE
from marslora.core.seeds import derive
from marslora.laws import CellCurve, fit_joint
from marslora.strategies._base import Problem, usable
from marslora.strategies._predictions import Predictions

Array = NDArray[np.float64]
NUM_DRAWS = 2000
REAL_SHARE = 0.5
"""Share of a cell's departure from the law that is its own: with one seed it cannot be told from luck."""
LEAST_CELLS = 2


@lru_cache(maxsize=256)
def predict_jointly(problem: Problem, runs: tuple[Run, ...]) -> Predictions | None:
    """Draws of every candidate's lowest loss by the joint law of the runs; None where too little was seen."""
    curves = curves_of(problem, runs)
    if len(curves) < LEAST_CELLS:
        return None
    x_CM = coordinates(problem, problem.candidates())
    rng = np.random.default_rng(derive(problem.seed, "joint law"))
    log_t = float(np.log(problem.full_examples))
    log_rows = float(np.log(problem.num_train))
    log_SC = fit_joint(curves).draws(x_CM, log_t, log_rows, NUM_DRAWS, rng, REAL_SHARE)
    return Predictions(loss_C=np.exp(log_SC.mean(axis=0)), loss_SC=np.exp(log_SC), noise=float("inf"))


def curves_of(problem: Problem, runs: Sequence[Run]) -> list[CellCurve]:
    """The furthest run of each candidate, without its very first points, in the law's coordinates."""
    begin = max(problem.batch_size, FIRST_SHARE * problem.full_examples)
    furthest: dict[Allocation, Run] = {}
    for run in sorted(filter(usable, runs), key=lambda run: run.last_examples):
        furthest[run.member.allocation] = run
    curves = []
    for allocation, run in furthest.items():
        seen = [(t, loss) for t, loss in zip(run.examples, run.validation_loss, strict=True) if t > begin and loss > 0]
        if len(seen) > 1:
            log_N2 = np.log(np.array(seen, dtype=float))
            curves.append(CellCurve(coordinates(problem, [allocation])[0], log_N2[:, 0], log_N2[:, 1]))
    return curves


def coordinates(problem: Problem, allocations: Sequence[Allocation]) -> Array:
    """Each searched part's log rank, its ladder from -1 to 1: (len(allocations), M)."""
    parts = problem.space.searched
    ladder_M2 = np.log2([[max(problem.space.ladder(p)[0], 0.5), problem.space.ladder(p)[-1]] for p in parts])
    log_NM = np.log2([[max(allocation[part], 0.5) for part in parts] for allocation in allocations])
    return np.asarray(2 * (log_NM - ladder_M2[:, 0]) / (ladder_M2[:, 1] - ladder_M2[:, 0]) - 1)
