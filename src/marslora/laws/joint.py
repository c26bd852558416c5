"""The joint law: every allocation goes through one curve, at the speed that its ranks give it. `mars` decides by it.

For an allocation c with scaled log ranks ``x_c`` (each part's ladder from -1 to 1), after t examples::

    (1)  log L(c, t) = m( min(log t - tau_c, u - v_c) ) + e
    (2)  m(s)        = lowest measured up to s;  beyond the end s0:  m(s0) - g exp(b (s - s0) / 2g) (s - s0)
    (3)  u           = log(rows) + log(TURN_PASSES) + TURN_WIDTH z;  the measured time if the curve has turned
    (4)  tau_c       = f(x_c) . w + own_c,   f(x) = (1, x_a, x_a x_b),   own_c ~ N(0, own^2)
    (5)  tau_c'      = weighted mean over the run's points of  log t_n - m^-1(y_n)

(1) is Law-C for all parts and all losses at once: the time to any loss is the reference's, times ``exp(tau_c)``. (2)
``m`` is the curve of the run trained furthest, with last slope g and bend b. (3) Overfitting: the reference turns
upwards at u. A slower allocation turns later, but perhaps too early to get as low: ``v_c`` is uniform between 0 and its
delay, so it turns somewhere between the time and the loss of the reference's turn. (4) Delays are quadratic in the log
ranks, so that allocations lend each other strength and unmeasured ones have a delay too. (5) The delay of a measured
run: how much earlier the reference had each of its losses. Delays wander with time (`DRIFT`), so later points count
more, and predictions far beyond a run's end are less certain.

So a run that is ahead of the others shows what awaits them, e.g. a floor at which ranks stop mattering. A predicted
loss is always that of the best point so far, which is what a final run keeps. Equations (2) and (3) are computed in
`marslora.laws.reference_curve`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marslora.core.arrays import Array
from marslora.laws.reference_curve import NOISE, ReferenceCurve, RunCurve

# The constants of this file and of `reference_curve` were set on the tables that test them (dev/LOG.md, 2026-11-23).
OWN_LOSS = 0.01
"""e of equation (1): standard deviation of an allocation's own departure in log loss, whatever its speed.

With 0.02 or 0.03 the plausible set holds the best in 84 instead of 82 % of replays, and where rank does not matter
nothing short of a full run can say so (dev/LOG.md, 2026-11-23).
"""
OFFSET_WIDTH, LINE_WIDTH, SQUARE_WIDTH = 2.0, 0.8, 0.25
"""Prior standard deviations of w in equation (4), in e-folds of time: the constant, the ranks, squares and products.

The constant is only kept from running away. From -1 to 1, a line of 0.8 lets a ladder's ends differ fivefold in speed.
"""
MIN_OWN = 0.05
"""Least standard deviation of an allocation's own delay in equation (4), in e-folds of time."""
DRIFT = 0.05
"""How far the coefficients w wander in one e-fold of time. With 0.15 the stated probabilities were half of the observed
shares (dev/LOG.md, 2026-11-23)."""
SLOW_DRIFT = 0.5
"""Squares and products, and each allocation's own delay, wander by this share of `DRIFT`."""
DELAY_VARIANCE = 1e-6
"""Added to the variance of each point's delay, so that a steep reference does not make a point infinitely certain."""
NUM_FIT_ROUNDS = 5
"""Rounds between w and the variance of own delays. On benchmarks/tables nothing changes after three."""


@dataclass(frozen=True)
class Delay:
    """The delay of one allocation behind the reference when it was last measured."""

    value: float
    """In e-folds of time; above 0 for an allocation that is slower."""
    variance: float
    seen: float
    """Log examples up to which it was measured."""


@dataclass(frozen=True)
class JointLaw:
    """A fitted joint law: the reference curve, and delays as a quadratic in log ranks."""

    reference: ReferenceCurve
    mean_Q: Array
    """Posterior mean of w, equation (4)."""
    covariance_QQ: Array
    """Posterior covariance of w."""
    own: float
    """Standard deviation of own_c, equation (4)."""
    delays: dict[tuple[float, ...], Delay]
    """Measured delays, equation (5), by the allocation's scaled log ranks."""

    def draw_losses(
        self, x_CM: Array, log_t: float, log_rows: float, num: int, rng: np.random.Generator, own_share: float
    ) -> Array:
        """Equation (1): lowest log loss of C allocations up to a time, in ``num`` draws: (num, C).

        Args:
            x_CM: The allocations' scaled log ranks, as in `RunCurve`.
            log_t: Logarithm of the examples seen.
            log_rows: Logarithm of the training rows, of which passes are counted.
            num: Draws S.
            rng: Where draws come from.
            own_share: How much of an allocation's own delay is its own rather than the luck of its seed, 0 to 1.
        """
        delay_SC = self._draw_delays(x_CM, log_t, num, rng, own_share)
        turn_S1 = self.reference.draw_turns(log_rows, num, rng)
        before_turn_SC = rng.random((num, 1)) * np.maximum(delay_SC, 0.0)
        loss_SC = self.reference.draw_lowest(np.minimum(log_t - delay_SC, turn_S1 - before_turn_SC), rng)
        total: Array = loss_SC + OWN_LOSS * rng.normal(size=loss_SC.shape)
        return total

    def _draw_delays(self, x_CM: Array, log_t: float, num: int, rng: np.random.Generator, own_share: float) -> Array:
        """Equation (4) in ``num`` draws, (num, C): given the measured delays, wandering on until ``log_t``."""
        features_CQ = build_features(x_CM)
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
            delay_SC[:, c] += own_share * own_S
        seen_C = np.array([delay.seen if delay else np.nan for delay in known])
        ahead_C = np.maximum(log_t - np.where(np.isnan(seen_C), np.nanmin(seen_C), seen_C), 0.0)
        width_Q = DRIFT * (features_CQ.shape[1] > 1) * np.concatenate([[0.0], np.ones(features_CQ.shape[1] - 1)])
        width_Q[1 + x_CM.shape[1] :] *= SLOW_DRIFT
        delay_SC += (rng.normal(size=(num, len(width_Q))) * width_Q) @ features_CQ.T * np.sqrt(ahead_C)
        delay_SC += rng.normal(size=delay_SC.shape) * DRIFT * SLOW_DRIFT * np.sqrt(ahead_C) * own_share
        return delay_SC


def build_features(x_NM: Array) -> Array:
    """f of equation (4), (N, Q): one, each scaled log rank, squares and products."""
    num_parts = x_NM.shape[1]
    pairs = [x_NM[:, a] * x_NM[:, b] for a in range(num_parts) for b in range(a, num_parts)]
    return np.stack([np.ones(len(x_NM)), *x_NM.T, *pairs], axis=1)


def measure_delay(curve: RunCurve, reference: ReferenceCurve) -> Delay:
    """Equation (5): the generalised least squares mean of the delays at a run's points, up to its lowest.

    The error of a point is the noise of two log losses divided by the reference's slope there; besides, the delay is a
    random walk that ends at the last point, so later points count more.
    """
    num = max(int(np.argmin(curve.y_N)) + 1, 2)
    when_N, fall_N = reference.invert(curve.y_N[:num])
    since_N = curve.log_t_N[num - 1] - curve.log_t_N[:num]
    wander = DRIFT**2 * np.minimum(since_N[:, None], since_N)
    covariance = wander + np.diag((NOISE / fall_N) ** 2 * 2 + DELAY_VARIANCE)
    weights_N = np.linalg.solve(covariance, np.ones(len(since_N)))
    value = float(weights_N @ (curve.log_t_N[:num] - when_N) / weights_N.sum())
    return Delay(value, float(1 / weights_N.sum()), curve.end)


def fit_joint_law(curves: Sequence[RunCurve]) -> JointLaw:
    """Fit equation (4) to the delays of the runs: Bayesian linear regression, own delays' variance by moments.

    ``curves`` holds one run of each measured allocation, with at least two points each.
    """
    reference = ReferenceCurve.of(curves)
    delays = [measure_delay(curve, reference) for curve in curves]
    features_NQ = build_features(np.array([curve.x_M for curve in curves]))
    value_N = np.array([delay.value for delay in delays])
    variance_N = np.array([delay.variance for delay in delays])
    num_parts = len(curves[0].x_M)
    num_squares = features_NQ.shape[1] - 1 - num_parts
    width_Q = np.array([OFFSET_WIDTH] + [LINE_WIDTH] * num_parts + [SQUARE_WIDTH] * num_squares)
    own = MIN_OWN
    for _ in range(NUM_FIT_ROUNDS):
        weight_N = 1 / (variance_N + own**2)
        precision_QQ = (features_NQ.T * weight_N) @ features_NQ + np.diag(width_Q**-2)
        covariance_QQ = np.linalg.inv(precision_QQ).astype(np.float64)
        mean_Q = covariance_QQ @ (features_NQ.T @ (weight_N * value_N))
        left_N = value_N - features_NQ @ mean_Q
        freedom = max(len(curves) - np.trace(covariance_QQ @ (features_NQ.T * weight_N) @ features_NQ), 1.0)
        own = max(float(np.sqrt(max((left_N**2 - variance_N).sum() / freedom, 0.0))), MIN_OWN)
    by_place = {tuple(curve.x_M.tolist()): delay for curve, delay in zip(curves, delays, strict=True)}
    return JointLaw(reference, mean_Q, covariance_QQ, own, by_place)
