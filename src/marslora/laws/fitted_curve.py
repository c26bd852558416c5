"""One run's validation loss over the examples seen, at a constant learning rate: curve, floor, convergence time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from marslora.core.arrays import Array
from marslora.core.runs import Run
from marslora.laws.fitting import Fitted, fit_form
from marslora.laws.form import Form, Inputs, Shape, stack_columns
from marslora.laws.minimising import Sample

CONVERGED_SHARE = 0.9
"""The share of the way from start to floor at which a run counts as converged. A convention of this project."""
MIN_POINTS = 4
"""A curve of fewer points is too short: the forms have four parameters."""
TURN_NOISES = 3.0
"""A curve has turned upwards if it ends this many standard deviations of the noise above its minimum, and is flat if it
fell by less. A convention: beyond chance."""
MIN_NOISE = 1e-4
"""Least standard deviation of log residuals that is assumed."""
MIN_FALL = 1e-3
"""A curve that fell by less, in log loss, is flat however little noise it has."""
FIRST_TIME, NUM_TIMES = 1e-4, 2000
"""Where convergence is looked for: at this many times, even in the logarithm, from this share of the run on."""


class PowerCurve(Form):
    """``E + A (1 + t / tau)^-c``; exponential in the limit of large c."""

    variant, text = "power", "L = E + A (1 + t/tau)^-c"
    coefficients = ("E", "A")
    shapes = (Shape("tau", -7.0, 4.0, 2.0, positive=True), Shape("c", -2.3, 2.5, 0.7, positive=True))

    def basis(self, x: Inputs, shape_BQ: NDArray[Any]) -> NDArray[Any]:
        """A constant and the decay."""
        return stack_columns(len(x["t"]), 1.0, (1.0 + x["t"] / np.exp(shape_BQ[:, :1])) ** -np.exp(shape_BQ[:, 1:]))


class DelayedCurve(Form):
    """``E + A / (1 + (t / tau)^c)``: flat at first if c > 1, as under a learning rate that warms up."""

    variant, text = "delayed", "L = E + A / (1 + (t/tau)^c)"
    coefficients = ("E", "A")
    shapes = (Shape("tau", -7.0, 4.0, 2.0, positive=True), Shape("c", -1.6, 1.8, 0.7, positive=True))

    def basis(self, x: Inputs, shape_BQ: NDArray[Any]) -> NDArray[Any]:
        """A constant and the sigmoid in log t."""
        log_t = np.log(np.maximum(x["t"], 1e-12))
        grown = np.exp(np.exp(shape_BQ[:, 1:]) * (log_t - shape_BQ[:, :1]))
        return stack_columns(len(x["t"]), 1.0, 1.0 / (1.0 + grown))


@dataclass(frozen=True)
class FittedCurve:
    """A fitted curve. Times are in examples seen."""

    status: Literal["fitted", "turned_up", "flat", "too_short"]
    last_examples: float
    """Examples seen at its end."""
    start: float
    """Loss at 0 examples, smoothed."""
    lowest: float
    """Least smoothed loss."""
    fitted: Fitted | None = None
    """The form, its time in units of ``last_examples``."""
    noise: float = float("nan")
    """Standard deviation of the log residuals."""

    def value(self, examples: Array) -> Array:
        """The fitted loss after given examples at the same learning rate; NaN if nothing could be fitted."""
        if self.fitted is None:
            return np.full(np.shape(examples), np.nan)
        return self.fitted.predict({"t": np.asarray(examples, dtype=float) / self.last_examples})

    def floor(self, horizon: float | None = None) -> float:
        """The least loss in reach: after ``horizon`` examples, or ever; the minimum if the curve turned upwards."""
        if self.fitted is None or self.status == "turned_up":
            return self.lowest
        asymptote = float(np.exp(self.fitted.inner_P[0]))
        reached = asymptote if horizon is None else float(self.value(np.array([horizon]))[0])
        return min(reached, self.lowest)


@dataclass(frozen=True)
class Convergence:
    """When a run converged, or for how long it did not."""

    examples: float
    """Examples seen at convergence; a lower bound if ``censored``."""
    censored: bool
    curve: FittedCurve


def fit_curve(run: Run) -> FittedCurve:
    """The curve of a run; if it turns upwards (too many passes over few rows), only its descent is fitted."""
    return _fit_points(run.examples, run.validation_loss, run.status == "diverged")


@lru_cache(maxsize=4096)
def _fit_points(examples: tuple[int, ...], losses: tuple[float, ...], diverged: bool) -> FittedCurve:
    t_N, loss_N = _drop_unusable(examples, losses)
    if len(t_N) < MIN_POINTS or diverged:
        last = float(t_N[-1]) if len(t_N) else 0.0
        start, lowest = (float(loss_N[0]), float(loss_N.min())) if len(t_N) else (np.nan, np.nan)
        return FittedCurve("too_short", last, start, lowest)
    bottom = _find_bottom(loss_N)
    stop = max(bottom + 1, MIN_POINTS)
    fitted = _fit(t_N[:stop] / t_N[-1], loss_N[:stop])
    noise = max(fitted.noise, MIN_NOISE)
    smooth_N = fitted.predict({"t": t_N / t_N[-1]})
    start, lowest = float(smooth_N[0]), float(smooth_N[stop - 1])
    status: Literal["fitted", "turned_up", "flat"] = "fitted"
    if np.log(start / lowest) <= max(TURN_NOISES * noise, MIN_FALL):
        status = "flat"
    elif stop < len(t_N) and np.log(np.median(loss_N[-2:]) / lowest) > TURN_NOISES * noise:
        status = "turned_up"
    elif stop < len(t_N):
        fitted = _fit(t_N / t_N[-1], loss_N)
        smooth_N = fitted.predict({"t": t_N / t_N[-1]})
        start, lowest = float(smooth_N[0]), float(smooth_N[-1])
    return FittedCurve(status, float(t_N[-1]), start, lowest, fitted, noise)


def find_convergence(
    curve: FittedCurve, share: float = CONVERGED_SHARE, floor: float | None = None
) -> Convergence | None:
    """The first time at which the smoothed loss has closed ``share`` of the way from its start to its floor.

    The smoother is the fitted curve itself, read only as far as the run was measured: a run that did not get there is
    censored at its last examples. ``floor`` replaces the curve's own. None if the run has too few points.
    """
    if curve.status == "too_short" or curve.fitted is None:
        return None
    goal = curve.start - share * (curve.start - (curve.floor() if floor is None else floor))
    grid = np.concatenate([[0.0], np.geomspace(FIRST_TIME, 1.0, NUM_TIMES)]) * curve.last_examples
    below = np.flatnonzero(curve.value(grid) <= goal * (1 + 1e-12))
    if curve.status == "flat" or not len(below):
        return Convergence(curve.last_examples, True, curve)
    return Convergence(max(float(grid[below[0]]), FIRST_TIME * curve.last_examples), False, curve)


def _fit(t_N: Array, loss_N: Array) -> Fitted:
    """The better of the two curve families."""
    points = Sample({"t": t_N}, loss_N, np.zeros(len(t_N), dtype=bool), np.arange(len(t_N)))
    return min((fit_form(form, points) for form in (PowerCurve(), DelayedCurve())), key=lambda fitted: fitted.noise)


def _drop_unusable(examples: tuple[int, ...], losses: tuple[float, ...]) -> tuple[Array, Array]:
    pairs = [
        (float(t), float(loss)) for t, loss in zip(examples, losses, strict=False) if np.isfinite(loss) and loss > 0
    ]
    t_N, loss_N = np.array(pairs).reshape(-1, 2).T
    return (t_N, loss_N) if len(t_N) and t_N[-1] > 0 else (t_N[:0], loss_N[:0])


def _find_bottom(loss_N: Array) -> int:
    """Index of the least running median of three."""
    padded = np.concatenate([loss_N[:1], loss_N, loss_N[-1:]])
    middle = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    return int(np.argmin(middle))
