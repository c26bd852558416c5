"""The joint law: every allocation goes through one curve, at the speed that its ranks give it.

``L(c, t) = m(log t - tau_c)``: Law-C (the time to any loss falls as a power of each rank) for all parts and all losses
at once. The curve ``m`` is that of the run seen furthest, read as it is and carried on where it ends. The delay
``tau_c`` is read off every other run: how much earlier the reference had its losses. Delays are a quadratic in the
logarithms of the ranks, so that allocations lend each other strength and unmeasured ones have a delay too; with time
they wander. So a run that is ahead shows what awaits the slow ones, such as a floor where ranks stop to matter.

A loss is that of the best point so far, which is what a final run keeps. The reference turns upwards after some passes
over the rows, if it has not yet. Others turn later, but perhaps too early to get as low: each somewhere between the
time and the loss of the reference's turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
NOISE = 0.015
"""Standard deviation of a log validation loss around a smooth curve."""
OWN_LOSS = 0.01
"""Standard deviation of a cell's own departure in log loss, whatever its speed."""
LINE_WIDTH, SQUARE_WIDTH = 0.8, 0.25
"""Prior standard deviations of the delay's coefficients (e-folds of time; ladders run from -1 to 1)."""
LEAST_OWN = 0.05
"""A cell's own departure from the quadratic is no less, in e-folds of time."""
DRIFT = 0.05
"""How far the coefficients wander in one e-fold of time; a cell's own delay wanders by half of it."""
TURN_PASSES, TURN_WIDTH = 8.0, 0.7
"""The loss of the fastest turns upwards after so many passes over the rows: median, and width in units of e."""
BEND = 0.25
"""How much the slope of the reference may change in one e-fold beyond its end, relative to it."""


@dataclass(frozen=True)
class CellCurve:
    """One run: log loss at log times, where it stands among the ranks."""

    x_M: Array
    """Logarithm of each searched part's rank, scaled so that its ladder runs from -1 to 1."""
    log_t_N: Array
    """Increasing."""
    y_N: Array

    @property
    def end(self) -> float:
        """Log examples at its end."""
        return float(self.log_t_N[-1])


@dataclass(frozen=True)
class Reference:
    """The curve of the run seen furthest, and what is thought of its future."""

    log_t_N: Array
    y_N: Array
    falling: int
    """Points until its lowest."""

    @classmethod
    def of(cls, curves: Sequence[CellCurve]) -> Reference:
        """The longest run's; of several, the one that got lowest."""
        furthest = max(curve.end for curve in curves)
        best = min((c for c in curves if c.end >= furthest - 0.01), key=lambda c: float(c.y_N[-1]))
        return cls(best.log_t_N, best.y_N, int(np.argmin(best.y_N)) + 1)

    def turns(self, log_rows: float, num: int, rng: np.random.Generator) -> Array:
        """Log time of its lowest point, (S, 1): as seen, if it has risen since by more than noise; else S draws."""
        if self.y_N[-1] - self.y_N[self.falling - 1] > 2 * NOISE:
            return np.full((num, 1), self.log_t_N[self.falling - 1])
        turn_S1 = log_rows + np.log(TURN_PASSES) + TURN_WIDTH * rng.normal(size=(num, 1))
        later: Array = np.maximum(turn_S1, self.log_t_N[-1])
        return later

    @property
    def slope(self) -> float:
        """Fall of log loss in one e-fold of time, at its end."""
        return self._fall(-1)

    @property
    def bend(self) -> tuple[float, float]:
        """Change of that fall in one e-fold and its standard deviation: what the last part shows, shrunk to none."""
        width = BEND * max(self.slope, 0.1)
        if len(self.y_N) < 6:
            return 0.0, width
        middle = -1 - (len(self.y_N) - 1) // 2
        apart = float(self.log_t_N[-1] - self.log_t_N[middle])
        seen = (self._fall(-1) - self._fall(middle)) / apart
        noise = NOISE * np.sqrt(2) * np.hypot(1 / self._interval(-1), 1 / self._interval(middle)) / apart
        trust = width**2 / (width**2 + noise**2)
        return float(trust * seen), float(width * np.sqrt(1 - trust))

    def _fall(self, at: int) -> float:
        stop = len(self.y_N) + at
        return float(self.y_N[max(stop - 2, 0)] - self.y_N[stop]) / self._interval(at)

    def _interval(self, at: int) -> float:
        stop = len(self.y_N) + at
        return float(self.log_t_N[stop] - self.log_t_N[max(stop - 2, 0)])

    def when(self, y_N: Array) -> tuple[Array, Array]:
        """(log time, fall per e-fold) at which the falling reference had a loss; beyond its lowest, carried on."""
        low_N = np.minimum.accumulate(self.y_N[: self.falling])
        t_N = self.log_t_N[: self.falling]
        rising_N, backwards_N = low_N[::-1], t_N[::-1]
        keep = np.concatenate([[True], np.diff(rising_N) > 1e-9])
        inside = np.interp(y_N, rising_N[keep], backwards_N[keep])
        falls = np.maximum(-np.gradient(low_N, t_N), 1e-3) if len(t_N) > 1 else np.full(1, 1e-3)
        fall_N = np.interp(inside, t_N, falls)
        beyond = np.maximum(low_N[-1] - y_N, 0.0) / max(falls[-1], 0.05)
        return inside + beyond, fall_N

    def draws(self, log_t_SC: Array, rng: np.random.Generator) -> Array:
        """Its lowest log loss up to times, (S, C), one future for each of S draws."""
        num, low_N = len(log_t_SC), np.minimum.accumulate(self.y_N)
        slope_S1 = np.maximum(self.slope + NOISE * rng.normal(size=(num, 1)), 0.0)
        bend, width = self.bend
        bend_S1 = min(bend, 0.0) + width * rng.normal(size=(num, 1))
        ahead_SC = np.maximum(log_t_SC - self.log_t_N[-1], 0.0)
        kept_SC = np.exp(np.minimum(bend_S1 / np.maximum(slope_S1, 0.05), 0.5) * ahead_SC / 2)
        total: Array = np.interp(log_t_SC, self.log_t_N, low_N) - slope_S1 * kept_SC * ahead_SC
        return total


def features(x_NM: Array) -> Array:
    """What a delay is linear in, (N, Q): one, each rank, squares and products."""
    num_parts = x_NM.shape[1]
    pairs = [x_NM[:, a] * x_NM[:, b] for a in range(num_parts) for b in range(a, num_parts)]
    return np.stack([np.ones(len(x_NM)), *x_NM.T, *pairs], axis=1)


@dataclass(frozen=True)
class Delay:
    """A cell's delay behind the reference when last seen, and how sure that is."""

    value: float
    variance: float
    seen: float
    """Log examples at which it was last seen."""


def delay_of(curve: CellCurve, reference: Reference) -> Delay:
    """The delay of a run as it fell, its later points counting more because delays wander."""
    num = max(int(np.argmin(curve.y_N)) + 1, 2)
    when_N, fall_N = reference.when(curve.y_N[:num])
    since_N = curve.log_t_N[num - 1] - curve.log_t_N[:num]
    wander = DRIFT**2 * np.minimum(since_N[:, None], since_N)
    covariance = wander + np.diag((NOISE / fall_N) ** 2 * 2 + 1e-6)
    weights_N = np.linalg.solve(covariance, np.ones(len(since_N)))
    value = float(weights_N @ (curve.log_t_N[:num] - when_N) / weights_N.sum())
    return Delay(value, float(1 / weights_N.sum()), curve.end)


@dataclass(frozen=True)
class Joint:
    """A fitted joint law: delays as a quadratic in log ranks, and the reference."""

    reference: Reference
    mean_Q: Array
    covariance_QQ: Array
    own: float
    """Standard deviation of a cell's departure from the quadratic, in e-folds of time."""
    delays: dict[tuple[float, ...], Delay]
    """Measured ones, by the cell's place among the ranks."""

    def draws(
        self, x_CM: Array, log_t: float, log_rows: float, num: int, rng: np.random.Generator, real_share: float
    ) -> Array:
        """Lowest log loss of C cells up to a time in ``num`` draws, (num, C).

        ``log_rows``: logarithm of the training rows, of which passes are counted.
        ``real_share``: how much of a cell's departure is its own rather than the luck of its seed.
        """
        features_CQ = features(x_CM)
        known = [self.delays.get(tuple(row)) for row in x_CM]
        coefficients_SQ = rng.multivariate_normal(self.mean_Q, self.covariance_QQ, size=num)
        delay_SC = coefficients_SQ @ features_CQ.T
        for c, delay in enumerate(known):
            prior = self.own**2
            gain = prior / (prior + delay.variance) if delay else 0.0
            left = prior * (1 - gain)
            own_S = rng.normal(size=num) * left**0.5
            if delay:
                own_S += gain * (delay.value - delay_SC[:, c])
            delay_SC[:, c] += real_share * own_S
        seen_C = np.array([delay.seen if delay else np.nan for delay in known])
        ahead_C = np.maximum(log_t - np.where(np.isnan(seen_C), np.nanmin(seen_C), seen_C), 0.0)
        width_Q = DRIFT * (features_CQ.shape[1] > 1) * np.concatenate([[0.0], np.ones(features_CQ.shape[1] - 1)])
        width_Q[1 + x_CM.shape[1] :] /= 2
        delay_SC += (rng.normal(size=(num, len(width_Q))) * width_Q) @ features_CQ.T * np.sqrt(ahead_C)
        delay_SC += rng.normal(size=delay_SC.shape) * DRIFT / 2 * np.sqrt(ahead_C) * real_share
        turn_S1 = self.reference.turns(log_rows, num, rng)
        before_turn_SC = rng.random((num, 1)) * np.maximum(delay_SC, 0.0)
        loss_SC = self.reference.draws(np.minimum(log_t - delay_SC, turn_S1 - before_turn_SC), rng)
        total: Array = loss_SC + OWN_LOSS * rng.normal(size=loss_SC.shape)
        return total


def fit_joint(curves: Sequence[CellCurve]) -> Joint:
    """The joint law of the runs."""
    reference = Reference.of(curves)
    delays = [delay_of(curve, reference) for curve in curves]
    features_NQ = features(np.array([curve.x_M for curve in curves]))
    value_N = np.array([delay.value for delay in delays])
    variance_N = np.array([delay.variance for delay in delays])
    num_parts = len(curves[0].x_M)
    width_Q = np.array([2.0] + [LINE_WIDTH] * num_parts + [SQUARE_WIDTH] * (features_NQ.shape[1] - 1 - num_parts))
    own = LEAST_OWN
    for _ in range(5):
        weight_N = 1 / (variance_N + own**2)
        covariance_QQ = np.linalg.inv((features_NQ.T * weight_N) @ features_NQ + np.diag(width_Q**-2)).astype(
            np.float64
        )
        mean_Q = covariance_QQ @ (features_NQ.T @ (weight_N * value_N))
        left_N = value_N - features_NQ @ mean_Q
        freedom = max(len(curves) - np.trace(covariance_QQ @ (features_NQ.T * weight_N) @ features_NQ), 1.0)
        own = max(float(np.sqrt(max((left_N**2 - variance_N).sum() / freedom, 0.0))), LEAST_OWN)
    by_place = {tuple(curve.x_M.tolist()): delay for curve, delay in zip(curves, delays, strict=True)}
    return Joint(reference, mean_Q, covariance_QQ, own, by_place)
