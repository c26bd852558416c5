"""How fast losses fall while they are measured: where they hardly fall any more, settings can hardly differ."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from marslora.core.arrays import Array

USUAL_SLOPE = 0.35
"""Fall of the log loss in one e-fold of time that is called 1: about that of the embedded tasks."""
LEAST_SLOPE = 0.02
"""Least fall that is assumed, in the same unit as `USUAL_SLOPE`, so that flat curves do not make all settings equal."""
WINDOW = 0.7
"""Width of the window of log time over which a slope is measured, as a standard deviation."""


def measure_slopes(setting_N: NDArray[np.int64], log_share_N: Array, log_loss_N: Array) -> tuple[Array, float]:
    """The slope of the common curve at each point, and at the end of the longest run, in usual slopes.

    The common curve is made of the mean changes from point to point of all runs, and its slope is that of a line fitted
    around each point. Both are 1 if no run has two points.
    """
    change = _list_changes(setting_N, log_share_N, log_loss_N)
    if not change:
        return np.ones(len(log_share_N)), 1.0
    middle_K, slope_K, weight_K = (np.array(each) for each in zip(*change, strict=True))

    def smooth(at: float) -> float:
        near_K = weight_K * np.exp(-(((middle_K - at) / WINDOW) ** 2) / 2) + np.finfo(float).tiny
        return max(float((near_K * slope_K).sum() / near_K.sum()), LEAST_SLOPE) / USUAL_SLOPE

    return np.array([smooth(at) for at in log_share_N]), smooth(float(middle_K.max()))


def _list_changes(
    setting_N: NDArray[np.int64], log_share_N: Array, log_loss_N: Array
) -> list[tuple[float, float, float]]:
    """(log time, mean fall per e-fold, weight) between the points that follow one another in any run."""
    falls: dict[tuple[float, float], list[float]] = defaultdict(list)
    for setting in np.unique(setting_N):
        own = np.flatnonzero(setting_N == setting)
        own = own[np.argsort(log_share_N[own], kind="stable")]
        for a, b in pairwise(own.tolist()):
            if log_share_N[b] > log_share_N[a]:
                falls[float(log_share_N[a]), float(log_share_N[b])].append(float(log_loss_N[a] - log_loss_N[b]))
    return [
        ((start + end) / 2, float(np.mean(each)) / (end - start), len(each) * (end - start))
        for (start, end), each in falls.items()
    ]
