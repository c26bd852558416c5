"""The prior of the law of settings: means and covariances of log losses, see `marslora.laws.setting_law`.

The functions take NumPy arrays, or tensors of torch together with ``xp=torch``: the script that learns the constants
differentiates through them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

USUAL_STEPS, MOST_STEPS = 100.0, 300.0
"""Steps of a full run at which the means hold as they are, and up to which they change: no table is longer."""
START = -5.0
"""Log share of a full run at which the common curve begins: a run of 1/148 of a full one."""
LEVEL_VARIANCE = 9.0
"""Prior variance of the common curve's log loss: nothing is known of the level of a task's losses."""
JITTER = 1e-7
"""Added to the variance of every measurement, so that covariances can be inverted."""

Constants = Mapping[str, Any]
"""The constants by name: numbers, or for each group of features one number (`setting_law.json`)."""


@dataclass(frozen=True)
class Points:
    """N log losses, measured or asked for, of C settings."""

    value_NF: Any
    """Features of the point's setting."""
    place_ND: Any
    """Its coordinates, each divided by its length."""
    same_NN: Any
    """1 where two points belong to one setting."""
    log_share_N: Any
    """Log of the examples seen, as a share of a full run; for a training loss, at the middle of its interval."""
    is_final_N: Any
    """1 for the best loss of a full run with its decay, 0 for anything that was measured at a constant rate."""
    is_train_N: Any
    """1 for a mean training loss, else 0."""
    is_validation_N: Any
    """1 for a measured validation loss, else 0."""
    batch_NN: Any
    """1 where two points were measured at once: on the same training rows, or in the same validation."""
    rows_N: Any
    """Training rows that a training loss is the mean of; 1 otherwise."""
    slope_N: Any
    """How fast the common curve falls at the point, in usual slopes; for a best loss, at the end of the longest run."""
    log_steps: float
    """Log of the optimizer steps of a full run, at most `MOST_STEPS`, over `USUAL_STEPS`.

    Added to the log share it is the clock by which effects grow: steps, or in longer runs shares of the run.
    """


def compute_mean(constants: Constants, group_F: tuple[str, ...], points: Points) -> tuple[Any, Any]:
    """Prior means of the common curve and of the settings' differences from it, for amplitude 1: two (N,)."""
    clock_N = points.log_share_N + points.log_steps
    common_N = constants["slope"] * points.log_share_N + constants["decay"] * points.is_final_N
    own_N = 0.0 * clock_N
    for f, group in enumerate(group_F):
        course_N = constants[f"mean.{group}"] + constants[f"drift.{group}"] * clock_N
        course_N = course_N + constants[f"bend.{group}"] * clock_N**2 + constants[f"gain.{group}"] * points.is_final_N
        own_N = own_N + points.value_NF[:, f] * course_N
    return common_N, own_N * points.slope_N ** constants["slope_power"]


def compute_common_covariance(constants: Constants, points: Points, xp: Any = np) -> Any:
    """Prior covariance of the common curve, (N, N): a line in log time, an integrated random walk, and decay."""
    since_N = points.log_share_N - START
    early_NN = xp.minimum(since_N[:, None], since_N[None])
    late_NN = xp.maximum(since_N[:, None], since_N[None])
    walk_NN = early_NN**3 / 3 + early_NN**2 * (late_NN - early_NN) / 2
    line_NN = since_N[:, None] * since_N[None]
    decay_NN = points.is_final_N[:, None] * points.is_final_N[None]
    return (
        LEVEL_VARIANCE
        + constants["slope_sd"] ** 2 * line_NN
        + constants["walk_sd"] ** 2 * walk_NN
        + constants["decay_sd"] ** 2 * decay_NN
    )


def compute_own_covariance(constants: Constants, group_F: tuple[str, ...], points: Points, xp: Any = np) -> Any:
    """Prior covariance of the settings' differences from the common curve, for amplitude 1: (N, N).

    Every feature's coefficient moves smoothly in log time, grows with it, and changes once more with decay. Besides
    the features there is a smooth function of all coordinates, and each setting's own departure.
    """
    apart_NN = xp.abs(points.log_share_N[:, None] - points.log_share_N[None])
    smooth_NN = _correlate(apart_NN / constants["time_length"], xp)
    clock_N = points.log_share_N + points.log_steps
    middle_NN = (clock_N[:, None] + clock_N[None]) / 2
    decay_NN = points.is_final_N[:, None] * points.is_final_N[None]

    def move(name: str) -> Any:
        grown_NN = constants[f"sd.{name}"] ** 2 * xp.exp(2 * constants[f"growth.{name}"] * middle_NN)
        return grown_NN * smooth_NN + constants[f"gain_sd.{name}"] ** 2 * decay_NN

    squared_NN = ((points.place_ND[:, None] - points.place_ND[None]) ** 2).sum(-1)
    total_NN = xp.exp(-squared_NN / 2) * move("smooth") + points.same_NN * move("own")
    for group in dict.fromkeys(group_F):
        value_NG = points.value_NF[:, [f for f, each in enumerate(group_F) if each == group]]
        total_NN = total_NN + (value_NG @ value_NG.T) * move(group)
    fall_N = points.slope_N ** constants["slope_power"]
    return total_NN * fall_N[:, None] * fall_N[None]


def compute_noise(constants: Constants, points: Points, xp: Any = np) -> Any:
    """Covariance of the errors of measurement, (N, N). Points measured at once share an error: their rows are the same.

    Training losses also differ from validation losses as a whole, by one offset.
    """
    train_N, validation_N = points.is_train_N, points.is_validation_N
    both_train_NN = train_N[:, None] * train_N[None]
    both_validation_NN = validation_N[:, None] * validation_N[None]
    rows_noise_NN = constants["rows_sd"] ** 2 * both_train_NN / (points.rows_N[:, None] * points.rows_N[None]) ** 0.5
    shared_NN = points.batch_NN * (rows_noise_NN + constants["validation_sd"] ** 2 * both_validation_NN)
    measured_N = (train_N + validation_N) * constants["point_sd"] ** 2
    rows_N = train_N * constants["row_sd"] ** 2 / points.rows_N
    single_N = measured_N + rows_N + points.is_final_N * constants["final_sd"] ** 2 + JITTER
    return shared_NN + constants["offset_sd"] ** 2 * both_train_NN + xp.diag(single_N)


def _correlate(apart: Any, xp: Any) -> Any:
    """The Matern 5/2 correlation at a distance in lengths."""
    scaled = 5**0.5 * apart
    return (1 + scaled + scaled**2 / 3) * xp.exp(-scaled)
