"""Uncertainty by a cluster bootstrap: whole runs are reweighted, because the points of one run err together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marslora.core.arrays import Array
from marslora.core.decision import LEVEL, Interval
from marslora.laws.fitting import Fitted, refit
from marslora.laws.minimising import Sample

MAX_WEIGHT_VARIANCE = 4.0
"""Largest variance of the bootstrap weights. A convention: with more, replicates would rest on very few runs."""


def measure_interval(value: float, draws: Array, level: float = LEVEL) -> Interval:
    """The central interval of the draws around a value; the value alone if none is finite."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return Interval(value=value, low=value, high=value, level=level)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value), level=level)


def cluster_weights(group_N: NDArray[np.int64], num: int, rng: np.random.Generator, variance: float = 1.0) -> Array:
    """Bayesian bootstrap (Rubin 1981) over groups: (num, N) weights of mean 1 and variance about ``variance``.

    Points of a group share their weight. Gamma weights never leave a group out wholly, so laws of few runs stay
    identified in every replicate.
    """
    groups, index_N = np.unique(group_N, return_inverse=True)
    weight_BG = rng.gamma(1.0 / variance, size=(num, len(groups))) + 1e-6
    weight_BG /= weight_BG.mean(axis=1, keepdims=True)
    result: Array = weight_BG[:, index_N]
    return result


def bootstrap(fitted: Fitted, sample: Sample, num: int, rng: np.random.Generator) -> Array:
    """``num`` replicates of the inner parameters (num, P).

    The weights vary by ``n / (n - p)`` with n runs and p parameters: residuals of a fit are smaller than the errors
    behind them by the root of that factor, which matters with the few runs of a calibration.
    """
    if num == 0 or len(sample) == 0:
        return np.zeros((0, len(fitted.inner_P)))
    num_groups = len(np.unique(sample.group_N))
    variance = num_groups / max(num_groups - len(fitted.inner_P), 1)
    return refit(fitted, sample, cluster_weights(sample.group_N, num, rng, min(variance, MAX_WEIGHT_VARIANCE)))
