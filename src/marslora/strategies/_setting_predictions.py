"""What the law of settings predicts of every candidate, from the training and validation losses of the runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from marslora.core.arrays import Array
from marslora.core.runs import Run
from marslora.core.seeds import derive
from marslora.laws import Features, Measurements, fit_setting_law, load_constants, make_features
from marslora.laws.setting_law import UNKNOWN_START
from marslora.strategies._problem import MIN_STEPS, Problem
from marslora.strategies._reference import find_incumbent

NUM_DRAWS = 2000
"""Draws of the law. A probability of 0.95 then has a standard error of 0.005."""
UNCOUNTED = "projector"
"""The part that the law does not tell apart unless it is searched: on the tables it always has one rank."""
MOST_POINTS = 1200
"""Losses that the law is given at most, whose cost grows with their cube: the last ones of every run, and if there are
more runs, those of the furthest. A search of `mars` itself has fewer."""
FIRST_SHARE = 1 / 40
"""Losses before this share of a full run are not read: they are those of the warm-up."""


@lru_cache(maxsize=128)  # a search asks the same question again whenever it re-enacts its rounds
def predict_best_losses(problem: Problem, runs: tuple[Run, ...], constants: str = "") -> Array:
    """Draws of the best loss in a full run of every candidate, (S, C), in nats per answer token.

    ``constants`` is the path of other constants than those of the package, see `load_constants`.
    """
    known, measured = load_constants(constants), make_measurements(problem, runs)
    law = fit_setting_law(_describe_candidates(problem), measured, known)
    rng = np.random.default_rng(derive(problem.seed, "law of settings"))
    losses = np.exp(np.minimum(law.draw(NUM_DRAWS, rng), measured.log_start))
    return favour_reference(losses, find_incumbent(problem, runs), known["reference_best"], rng)


def favour_reference(loss_SC: Array, reference: int, share: float, rng: np.random.Generator) -> Array:
    """Draws of a mixture: in a share of studies the reference is taken to be the best, in the others the law is all.

    The law knows effects of ranks and rates one by one, and gives the reference no special place. But on a share of the
    tables' tasks it was the best of all. Without a draw in which it is the best, the measurements exclude that.
    """
    best_S = np.flatnonzero(loss_SC.argmin(axis=1) == reference)
    if not len(best_S):
        return loss_SC
    num = round(share * len(loss_SC))
    return np.concatenate([loss_SC[rng.permutation(len(loss_SC))[num:]], loss_SC[rng.choice(best_S, num)]])


@lru_cache(maxsize=16)
def _describe_candidates(problem: Problem) -> Features:
    num_steps = problem.full_examples / problem.batch_size
    parts = [part for part in problem.space.parts if part in problem.space.searched or part != UNCOUNTED]
    return make_features(problem.candidates(), parts, problem.centre_rate, num_steps)


def make_measurements(problem: Problem, runs: Sequence[Run], most_points: int = MOST_POINTS) -> Measurements:
    """The losses of the candidates' runs on all rows, as the law of settings takes them.

    Training losses count in the first pass over the rows, where no row has been seen before. Of a run that diverged,
    the loss that it ended with counts as that of the untouched model: it is at least as bad.
    """
    index = {setting: number for number, setting in enumerate(problem.candidates())}
    points: list[tuple[int, float, float, bool, tuple[int, ...], int]] = []
    used = sorted(runs, key=lambda run: (-run.last_examples, run.member.id))[:most_points]
    most = max(most_points // max(len(used), 1), 1)
    for run in sorted(used, key=lambda run: run.member.id):
        place = index.get(run.member.setting)
        if place is not None and run.member.data_examples == problem.num_train and run.status != "failed":
            points += [(place, *point) for point in list(_list_points(problem, run))[-most:]]
    if not points:
        return Measurements.none()
    settings, examples, losses, is_train, batches, rows = zip(*points, strict=True)
    numbers = {batch: number for number, batch in enumerate(dict.fromkeys(batches))}
    return Measurements(
        setting_N=np.array(settings, dtype=np.int64),
        log_share_N=np.log(np.array(examples) / problem.full_examples),
        log_loss_N=np.log(np.array(losses)),
        is_train_N=np.array(is_train, dtype=float),
        batch_N=np.array([numbers[batch] for batch in batches], dtype=np.int64),
        rows_N=np.array(rows, dtype=float),
        is_final_N=np.zeros(len(rows)),
        log_start=_find_log_start(runs, max(losses)),
    )


def _find_log_start(runs: Sequence[Run], largest: float) -> float:
    """Log loss of the untouched model; if no run has measured it, `UNKNOWN_START` above the largest loss that was."""
    before = [run.validation_loss[0] for run in runs if run.examples and run.examples[0] == 0]
    return float(np.log(np.median(before)) if before else np.log(largest) + UNKNOWN_START)


def _list_points(problem: Problem, run: Run) -> Iterator[tuple[float, float, bool, tuple[int, ...], int]]:
    """(examples, loss, whether a training loss, what it was measured on, rows) of every usable loss of a run."""
    first = max((MIN_STEPS - 1) * problem.batch_size, FIRST_SHARE * problem.full_examples)
    start = 0
    for end, loss in zip(run.train_examples, run.train_loss, strict=True):
        if first <= end <= problem.num_train and 0 < loss < np.inf:
            yield (start + end) / 2, loss, True, (start, end), end - start
        start = end
    for examples, loss in zip(run.examples, run.validation_loss, strict=True):
        if examples >= first and 0 < loss < np.inf:
            yield float(examples), loss, False, (examples,), 1
    if run.status == "diverged" and run.validation_loss:
        yield float(max(run.last_examples, first)), run.validation_loss[0], False, (run.last_examples,), 1
