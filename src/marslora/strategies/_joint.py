"""What the joint law says of every candidate at the end of a full run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from marslora.core.allocation import Allocation
from marslora.core.runs import Run
from marslora.core.seeds import derive
from marslora.laws import _joint
from marslora.strategies._base import Problem, usable
from marslora.strategies._outlook import Outlook

Array = NDArray[np.float64]
NUM_DRAWS = 2000
REAL_SHARE = 0.5
"""Share of a cell's departure from the law that is its own: with one seed it cannot be told from luck."""
MOST_POINTS = 8
"""Points of a run that are read, even in log t: between them a curve says little that is new."""
LEAST_CELLS = 3
FIRST_SHARE = 1 / 256
"""Earlier than this share of a full run (and than one step) nothing is read."""


@lru_cache(maxsize=256)
def joint_outlook(problem: Problem, runs: tuple[Run, ...]) -> Outlook | None:
    """Draws of every candidate's final loss by the joint law of the runs; None where too little was seen."""
    points = points_of(problem, runs)
    if points is None:
        return None
    try:
        law = _joint.fit(points)
    except np.linalg.LinAlgError:
        return None
    x_CM = coordinates(problem, problem.candidates())
    at = _joint.at_end(points, x_CM, np.arange(len(x_CM)), float(np.log(problem.full_examples)))
    rng = np.random.default_rng(derive(problem.seed, "joint law"))
    log_SC = law.draws(at, NUM_DRAWS, rng, real_share=REAL_SHARE)
    loss_SC = np.exp(log_SC)
    return Outlook(loss_C=np.exp(log_SC.mean(axis=0)), loss_SC=loss_SC, noise=float("inf"))


def points_of(problem: Problem, runs: Sequence[Run]) -> _joint.Points | None:
    """The later points of the runs in the law's coordinates; None where fewer than `LEAST_CELLS` cells have any."""
    candidates = {allocation: index for index, allocation in enumerate(problem.candidates())}
    begin = max(problem.batch_size, FIRST_SHARE * problem.full_examples)
    rows: list[tuple[Allocation, int, float, float]] = []
    for run in runs:
        if not usable(run):
            continue
        cell = candidates[run.member.allocation]
        seen = [(t, loss) for t, loss in zip(run.examples, run.validation_loss, strict=True) if t > begin and loss > 0]
        kept = np.unique(np.linspace(0, len(seen) - 1, min(len(seen), MOST_POINTS)).round().astype(int))
        rows += [(run.member.allocation, cell, float(seen[n][0]), float(np.log(seen[n][1]))) for n in kept if seen]
    if len({cell for _, cell, _, _ in rows}) < LEAST_CELLS:
        return None
    start = [run.validation_loss[0] for run in runs if usable(run) and run.examples[0] == 0]
    if not start:
        return None
    return _joint.Points(
        x_NM=coordinates(problem, [allocation for allocation, _, _, _ in rows]),
        log_t_N=np.log([t for _, _, t, _ in rows]),
        cell_N=np.array([cell for _, cell, _, _ in rows]),
        y_N=np.array([value for _, _, _, value in rows]),
        start=float(np.log(np.mean(start))),
        log_rows=float(np.log(problem.num_train)),
    )


def coordinates(problem: Problem, allocations: Sequence[Allocation]) -> Array:
    """Each searched part's log rank, its ladder from -1 to 1: (len(allocations), M)."""
    parts = problem.space.searched
    ladder_M2 = np.log2([[max(problem.space.ladder(p)[0], 0.5), problem.space.ladder(p)[-1]] for p in parts])
    log_NM = np.log2([[max(allocation[part], 0.5) for part in parts] for allocation in allocations])
    return np.asarray(2 * (log_NM - ladder_M2[:, 0]) / (ladder_M2[:, 1] - ladder_M2[:, 0]) - 1)
