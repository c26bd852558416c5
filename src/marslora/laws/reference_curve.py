"""The curve ``m`` of the joint law: that of the run trained furthest, and what is expected of it from there on.

The curve is read as it was measured, between its points by straight lines in log time. Beyond its end, equation (2) of
`marslora.laws.joint` carries it on: with the last slope, which bends as the last points do and is uncertain, until it
turns upwards, equation (3). Only the lowest loss up to a time counts, because a final run keeps its best point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marslora.core.arrays import Array

# Every number of this file was chosen on the tables of benchmarks/tables, which also test the law (dev/LOG.md,
# 2026-11-23: "These constants were set on the tables that test them"). The tables in benchmarks/tables/held_out came
# later and were looked at once.
NOISE = 0.015
"""Standard deviation of a log validation loss around a smooth curve."""
TURN_PASSES, TURN_WIDTH = 8.0, 0.7
"""The reference turns upwards after this many passes over the rows: median, and standard deviation of its logarithm.

Without a turn, 0.78 was predicted after four passes over 128 rows where 1.77 was reached (dev/LOG.md, 2026-11-23).
"""
TURN_NOISES = 2.0
"""A curve has turned upwards when it ends this many `NOISE` above its lowest point: fewer may be chance."""
BEND_WIDTH = 0.25
"""Standard deviation of the relative change of the slope in one e-fold of time, before the bend is looked at."""
MIN_BEND_SLOPE = 0.1
"""`BEND_WIDTH` is relative to a slope of at least this, so that a flat end does not seem certain to stay flat."""
MIN_BEND_POINTS = 6
"""With fewer points no bend is read off: it would be that of the warm-up."""
SAME_END = 0.01
"""Runs that end within this many e-folds of time count as equally long."""
MIN_FALL = 1e-3
"""Least fall in one e-fold that is used to turn a difference in loss into one in time."""
MIN_SLOPE = 0.05
"""Least fall in one e-fold beyond the lowest point; a flat end would push lower losses infinitely far away."""
MAX_BEND = 0.5
"""Most that a slope may grow, relative to itself, in one e-fold beyond the end."""
SAME_LOSS = 1e-9
"""Losses that differ by less are one point when the curve is read from loss to time."""


@dataclass(frozen=True)
class RunCurve:
    """What was measured of one run: N log losses at log times, and the ranks of its allocation."""

    x_M: Array
    """Logarithm of the rank of each of M searched parts, scaled so that the part's ladder runs from -1 to 1."""
    log_t_N: Array
    """Logarithm of the examples seen, increasing."""
    y_N: Array
    """Logarithm of the validation loss."""

    @property
    def end(self) -> float:
        """Logarithm of the examples seen at its end."""
        return float(self.log_t_N[-1])


@dataclass(frozen=True)
class ReferenceCurve:
    """The curve of the run trained furthest, and what is expected of its future."""

    log_t_N: Array
    y_N: Array
    num_falling: int
    """Points up to and including its lowest."""

    @classmethod
    def of(cls, curves: Sequence[RunCurve]) -> ReferenceCurve:
        """The longest curve; among equally long ones the one that ended lowest."""
        furthest = max(curve.end for curve in curves)
        best = min((c for c in curves if c.end >= furthest - SAME_END), key=lambda c: float(c.y_N[-1]))
        return cls(best.log_t_N, best.y_N, int(np.argmin(best.y_N)) + 1)

    def draw_turns(self, log_rows: float, num: int, rng: np.random.Generator) -> Array:
        """Equation (3): log time of its lowest point, (S, 1). As measured if it has turned, else S draws."""
        if self.y_N[-1] - self.y_N[self.num_falling - 1] > TURN_NOISES * NOISE:
            return np.full((num, 1), self.log_t_N[self.num_falling - 1])
        turn_S1 = log_rows + np.log(TURN_PASSES) + TURN_WIDTH * rng.normal(size=(num, 1))
        later: Array = np.maximum(turn_S1, self.log_t_N[-1])
        return later

    def draw_lowest(self, log_t_SC: Array, rng: np.random.Generator) -> Array:
        """Equation (2): its lowest log loss up to given times, (S, C), with one future for each of S draws."""
        num, low_N = len(log_t_SC), np.minimum.accumulate(self.y_N)
        slope_S1 = np.maximum(self.slope + NOISE * rng.normal(size=(num, 1)), 0.0)
        bend, width = self.bend
        bend_S1 = min(bend, 0.0) + width * rng.normal(size=(num, 1))
        ahead_SC = np.maximum(log_t_SC - self.log_t_N[-1], 0.0)
        growth_S1 = np.minimum(bend_S1 / np.maximum(slope_S1, MIN_SLOPE), MAX_BEND)
        kept_SC = np.exp(growth_S1 * ahead_SC / 2)  # half: the mean slope of the way, not the slope at its end
        total: Array = np.interp(log_t_SC, self.log_t_N, low_N) - slope_S1 * kept_SC * ahead_SC
        return total

    def invert(self, y_N: Array) -> tuple[Array, Array]:
        """(log time, fall per e-fold) at which the reference had given log losses, as in equation (5).

        Losses below its lowest are reached later, at its last slope.
        """
        low_N = np.minimum.accumulate(self.y_N[: self.num_falling])
        t_N = self.log_t_N[: self.num_falling]
        rising_N, backwards_N = low_N[::-1], t_N[::-1]
        keep = np.concatenate([[True], np.diff(rising_N) > SAME_LOSS])
        inside = np.interp(y_N, rising_N[keep], backwards_N[keep])
        falls = np.maximum(-np.gradient(low_N, t_N), MIN_FALL) if len(t_N) > 1 else np.full(1, MIN_FALL)
        fall_N = np.interp(inside, t_N, falls)
        beyond = np.maximum(low_N[-1] - y_N, 0.0) / max(falls[-1], MIN_SLOPE)
        return inside + beyond, fall_N

    @property
    def slope(self) -> float:
        """Fall of the log loss in one e-fold of time, at its end."""
        return self._measure_fall(-1)

    @property
    def bend(self) -> tuple[float, float]:
        """Change of the slope in one e-fold and its standard deviation: what the last half shows, shrunk towards none.

        The shrinkage is that of a Gaussian measurement under a Gaussian prior of width `BEND_WIDTH` times the slope. A
        bend believed as it was seen once predicted a floor at 3.5 nats where 1.3 was reached (dev/LOG.md, 2026-11-23).
        """
        width = BEND_WIDTH * max(self.slope, MIN_BEND_SLOPE)
        if len(self.y_N) < MIN_BEND_POINTS:
            return 0.0, width
        middle = -1 - (len(self.y_N) - 1) // 2
        apart = float(self.log_t_N[-1] - self.log_t_N[middle])
        seen = (self._measure_fall(-1) - self._measure_fall(middle)) / apart
        noise = NOISE * np.sqrt(2) * np.hypot(1 / self._interval(-1), 1 / self._interval(middle)) / apart
        trust = width**2 / (width**2 + noise**2)
        return float(trust * seen), float(width * np.sqrt(1 - trust))

    def _measure_fall(self, at: int) -> float:
        """Fall of the log loss in one e-fold over the two intervals before point ``at`` (negative: from the end)."""
        stop = len(self.y_N) + at
        return float(self.y_N[max(stop - 2, 0)] - self.y_N[stop]) / self._interval(at)

    def _interval(self, at: int) -> float:
        """Log time between that point and the one two before it."""
        stop = len(self.y_N) + at
        return float(self.log_t_N[stop] - self.log_t_N[max(stop - 2, 0)])
