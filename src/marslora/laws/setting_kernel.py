"""How log losses depart from the curves of the law of settings: covariances, see `marslora.laws.setting_law`.

The functions take NumPy arrays, or tensors of torch together with ``xp=torch``: the script that learns the constants
differentiates through them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

START = -5.0
"""Log share of a full run from which the common departure wanders: a run of 1/148 of a full one."""
JITTER = 1e-7
"""Added to the variance of every measurement, so that covariances can be inverted."""

Constants = Mapping[str, Any]
"""The learnt constants by name (`setting_law.json`)."""


@dataclass(frozen=True)
class Points:
    """N log losses, measured or asked for, of C settings."""

    place_ND: Any
    """Coordinates of the point's setting."""
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
    heat_N: Any
    """By which share the constant learning rate raises the loss of the point's setting, as far as the prior knows."""


def compute_departures(constants: Constants, points: Points, xp: Any = np) -> Any:
    """Covariance of the true log losses' departures from their curves: (N, N).

    There are three: one that all settings have in common, a smooth function of the coordinates, and each setting's own.
    All move slowly in log time. The slope of the common one is a random walk besides.
    """
    apart_NN = xp.abs(points.log_share_N[:, None] - points.log_share_N[None])
    moving_NN = _correlate(apart_NN / constants["time_length"], xp)
    since_N = points.log_share_N - START
    early_NN, late_NN = xp.minimum(since_N[:, None], since_N[None]), xp.maximum(since_N[:, None], since_N[None])
    walk_NN = early_NN**3 / 3 + early_NN**2 * (late_NN - early_NN) / 2
    each_NN = (
        constants["smooth_sd"] ** 2 * _find_near(constants, points, xp) + constants["own_sd"] ** 2 * points.same_NN
    )
    return constants["walk_sd"] ** 2 * walk_NN + moving_NN * (constants["level_sd"] ** 2 + each_NN)


def compute_surprise(constants: Constants, points: Points, left: float, xp: Any = np) -> Any:
    """Covariance of what no short run foretells of the best losses, (N, N): their points are the last ones.

    What all have in common and the smooth function grow with ``left``, the log time between the furthest measurement
    and the end of a full run. Each setting's own is its luck.
    """
    final_NN = points.is_final_N[:, None] * points.is_final_N[None]
    common_NN = constants["common_final_sd"] ** 2 + constants["smooth_final_sd"] ** 2 * _find_near(
        constants, points, xp
    )
    return final_NN * (left**2 * common_NN + constants["own_final_sd"] ** 2 * points.same_NN)


def compute_noise(constants: Constants, points: Points, xp: Any = np) -> Any:
    """Covariance of the errors of measurement, (N, N). Points measured at once share an error: their rows are the same.

    Training losses also differ from validation losses as a whole, by one offset. Settings whose learning rate is close
    to its limit have noisier losses.
    """
    train_N, validation_N = points.is_train_N, points.is_validation_N
    both_train_NN = train_N[:, None] * train_N[None]
    both_validation_NN = validation_N[:, None] * validation_N[None]
    rows_noise_NN = constants["rows_sd"] ** 2 * both_train_NN / (points.rows_N[:, None] * points.rows_N[None]) ** 0.5
    shared_NN = points.batch_NN * (rows_noise_NN + constants["validation_sd"] ** 2 * both_validation_NN)
    heated_N = constants["point_sd"] ** 2 + (constants["heat_sd"] * points.heat_N) ** 2
    measured_N = (train_N + validation_N) * heated_N
    rows_N = train_N * constants["row_sd"] ** 2 / points.rows_N
    return shared_NN + constants["offset_sd"] ** 2 * both_train_NN + xp.diag(measured_N + rows_N + JITTER)


def _find_near(constants: Constants, points: Points, xp: Any) -> Any:
    """The correlation of the smooth function between the settings of two points: (N, N)."""
    squared_NN = ((points.place_ND[:, None] - points.place_ND[None]) ** 2).sum(-1)
    return xp.exp(-squared_NN / (2 * constants["length"] ** 2))


def _correlate(apart: Any, xp: Any) -> Any:
    """The Matern 5/2 correlation at a distance in lengths."""
    scaled = 5**0.5 * apart
    return (1 + scaled + scaled**2 / 3) * xp.exp(-scaled)
