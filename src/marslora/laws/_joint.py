"""The joint law: every allocation goes through one curve, at the speed that its ranks give it.

``L(c, t) = [E_c + (L0 - E_c) / (1 + (v_c t / tau)^p)] exp(kappa max(0, log(v_c t / D))^2)``: a descent from the loss L0
of the untouched model to a floor, and, over many passes of D rows, a turn upwards. The speed ``v_c`` is an exponential
of a quadratic in the logarithms of the ranks: Law-C (the time to any loss falls as a power of each rank) for all parts
and losses at once. The floor ``E_c`` may depend on the ranks a little. So a fast allocation shows what awaits the slow
ones: a floor where ranks stop to matter, or a turn where the fast ones overfit first.

What is left is a Gaussian process: a misfit that all cells share, what a cell has for itself, and noise. Parameters and
scales are found by maximum a posteriori; parameters are drawn from their Laplace approximation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

Array = NDArray[np.float64]
CURVE_NAMES = ("log floor", "log tau", "log p", "log kappa")
SCALE_CENTRES = np.log([0.03, 0.05, 0.02, 0.01])
SCALE_WIDTHS = np.array([0.7, 0.7, 0.7, 0.7])
"""Log-normal priors of the standard deviations of misfit, drift, own departure and noise, in log loss."""
MISFIT_LENGTH = 0.7
"""How far the shared misfit reaches in log t."""
SHIFT_WIDTH, SQUARE_WIDTH, FLOOR_WIDTH = 0.7, 0.2, 0.1
"""Prior standard deviations of the log speed's coefficients and of the log floor's, ladders running from -1 to 1."""
STEP = 1e-5


@dataclass(frozen=True)
class Points:
    """N measurements of cells."""

    x_NM: Array
    """Logarithm of each searched part's rank, scaled so that its ladder runs from -1 to 1."""
    log_t_N: Array
    """Natural logarithm of the examples seen."""
    cell_N: NDArray[np.int64]
    """Which cell it belongs to."""
    y_N: Array
    """Log validation loss."""
    start: float
    """Log loss of the untouched model."""
    log_rows: float
    """Logarithm of the training rows: of the examples in one pass."""

    def __len__(self) -> int:
        return len(self.y_N)

    @property
    def pairs(self) -> Iterator[tuple[int, int]]:
        """Pairs of parts, each with itself too."""
        num_parts = self.x_NM.shape[1]
        return ((a, b) for a in range(num_parts) for b in range(a, num_parts))


class Curve:
    """The mean of the law and the priors of its parameters."""

    def __init__(self, points: Points) -> None:
        self.points = points
        num_parts = points.x_NM.shape[1]
        num_pairs = len(list(points.pairs))
        lowest = float(points.y_N.min())
        self.centre_P = np.zeros(len(CURVE_NAMES) + num_parts + num_pairs + num_parts)
        self.centre_P[:4] = lowest - 1.0, float(np.median(points.log_t_N)), 0.2, np.log(0.01)
        shift = [SHIFT_WIDTH] * num_parts + [SQUARE_WIDTH] * num_pairs
        self.width_P = np.array([1.0, 2.0, 0.4, 1.5, *shift, *[FLOOR_WIDTH] * num_parts])

    def __call__(self, parameters: Array, at: Points | None = None) -> Array:
        """Log loss at N points: (N,), or (S, N) for S rows of parameters."""
        points = at or self.points
        p = np.atleast_2d(parameters)
        num_parts = points.x_NM.shape[1]
        squares_NQ = np.stack([points.x_NM[:, a] * points.x_NM[:, b] for a, b in points.pairs], axis=1)
        shift_SN = p[:, 4 : 4 + num_parts] @ points.x_NM.T + p[:, 4 + num_parts : -num_parts] @ squares_NQ.T
        floor_SN = np.exp(np.minimum(p[:, :1] + p[:, -num_parts:] @ points.x_NM.T, points.start - 1e-3))
        clock_SN = points.log_t_N + shift_SN
        left_SN = 1 / (1 + np.exp(np.clip(np.exp(p[:, 2:3]) * (clock_SN - p[:, 1:2]), -50, 50)))
        descent_SN = np.log(floor_SN + (np.exp(points.start) - floor_SN) * left_SN)
        turn_SN = np.exp(p[:, 3:4]) * np.maximum(clock_SN - points.log_rows, 0.0) ** 2
        total: Array = descent_SN + turn_SN
        return total if parameters.ndim == 2 else total[0]

    def jacobian(self, parameters_P: Array) -> tuple[Array, Array]:
        """The mean at the points, and its derivative by every parameter: (N,), (N, P)."""
        moved = parameters_P + STEP * np.vstack([np.zeros(len(parameters_P)), np.eye(len(parameters_P))])
        values = self(moved)
        return values[0], (values[1:] - values[0]).T / STEP


class Residual:
    """The Gaussian process around the curve."""

    def __init__(self, points: Points) -> None:
        self.misfit = misfit_covariance(points, points)
        self.drift = drift_covariance(points, points)
        self.own = own_covariance(points, points)
        self.eye = np.eye(len(points))

    def terms(self, log_scales: Array) -> Array:
        """(4, N, N): what misfit, drift, own departure and noise contribute to the covariance."""
        return np.exp(2 * log_scales)[:, None, None] * np.stack([self.misfit, self.drift, self.own, self.eye])


def misfit_covariance(a: Points, b: Points) -> Array:
    """Of what all cells share."""
    total: Array = np.exp(-0.5 * ((a.log_t_N[:, None] - b.log_t_N) / MISFIT_LENGTH) ** 2)
    return total


def drift_covariance(a: Points, b: Points) -> Array:
    """Of what ranks do beside changing the speed: nothing at first, then a trend and a random walk in log t."""
    line_NK = a.x_NM @ b.x_NM.T
    begin = min(float(a.log_t_N.min()), float(b.log_t_N.min()))
    since_N, since_K = a.log_t_N[:, None] - begin, b.log_t_N - begin
    time_NK = 0.5 * np.minimum(since_N, since_K) + 0.25 * since_N * since_K
    total: Array = (line_NK + 0.25 * line_NK**2) * time_NK
    return total


def own_covariance(a: Points, b: Points) -> Array:
    """Of what a cell has for itself: there from the start, and wandering on in log t."""
    begin = min(float(a.log_t_N.min()), float(b.log_t_N.min()))
    total: Array = (a.cell_N[:, None] == b.cell_N) * (
        0.3 + 0.3 * np.minimum(a.log_t_N[:, None] - begin, b.log_t_N - begin)
    )
    return total


@dataclass(frozen=True)
class Joint:
    """A fitted joint law."""

    curve: Curve
    parameters_P: Array
    covariance_PP: Array
    """Of the parameters, by Laplace's approximation."""
    log_scales: Array

    @property
    def shift_M(self) -> Array:
        """Derivative of the log speed by each part's log rank, in the middle of the ladders (half-ladder units)."""
        num_parts = self.curve.points.x_NM.shape[1]
        return self.parameters_P[4 : 4 + num_parts]

    def draws(self, at: Points, num: int, rng: np.random.Generator, *, real_share: float) -> Array:
        """Log loss at C points in ``num`` draws of the posterior, (num, C).

        ``real_share``: how much of a cell's departure from the curve is its own rather than the luck of its seed.
        """
        value, vectors = np.linalg.eigh(self.covariance_PP)
        root = vectors * np.sqrt(np.maximum(value, 0.0))
        drawn_SP = self.parameters_P + rng.normal(size=(num, len(value))) @ root.T
        rest_C, rest_CC = self._rest(at, real_share)
        level, turned = np.linalg.eigh(rest_CC)
        noise_SC = rng.normal(size=(num, len(at))) @ (turned * np.sqrt(np.maximum(level, 0.0))).T
        total: Array = self.curve(drawn_SP, at) + rest_C + noise_SC
        return total

    def _rest(self, at: Points, real_share: float) -> tuple[Array, Array]:
        """Mean and covariance of drift and real own departures at C points, given the residuals."""
        points = self.curve.points
        factor = linalg.cho_factor(Residual(points).terms(self.log_scales).sum(axis=0), lower=True, check_finite=False)
        _, drift, own, _ = np.exp(2 * self.log_scales)

        def real(others: Points) -> Array:
            total: Array = drift * drift_covariance(at, others) + real_share * own * own_covariance(at, others)
            return total

        across_CN = real(points)
        residual_N = points.y_N - self.curve(self.parameters_P)
        mean_C = across_CN @ linalg.cho_solve(factor, residual_N, check_finite=False)
        spread: Array = real(at) - across_CN @ linalg.cho_solve(factor, across_CN.T)
        return mean_C, (spread + spread.T) / 2


def fit(points: Points) -> Joint:
    """The joint law of the points. Raises `LinAlgError` where they are degenerate."""
    curve, residual = Curve(points), Residual(points)
    num = len(curve.centre_P)
    centre = np.concatenate([curve.centre_P, SCALE_CENTRES])
    width = np.concatenate([curve.width_P, SCALE_WIDTHS])

    def objective(z: Array) -> tuple[float, Array]:
        """Negative log posterior in units of the priors' widths, and its gradient."""
        theta = centre + width * z
        mean_N, jacobian_NP = curve.jacobian(theta[:num])
        terms = residual.terms(theta[num:])
        factor = linalg.cho_factor(terms.sum(axis=0), lower=True, check_finite=False)
        weights_N = linalg.cho_solve(factor, points.y_N - mean_N, check_finite=False)
        inverse = linalg.cho_solve(factor, residual.eye, check_finite=False)
        pull = np.outer(weights_N, weights_N) - inverse
        rise = np.concatenate([jacobian_NP.T @ weights_N, (pull * terms).sum(axis=(1, 2))])
        evidence = -0.5 * float((points.y_N - mean_N) @ weights_N) - float(np.log(np.diag(factor[0])).sum())
        return 0.5 * float(z @ z) - evidence, z - width * rise

    starts = [np.zeros(len(centre)) for _ in range(2)]
    starts[1][4 : 4 + points.x_NM.shape[1]] = 1.0  # more rank is faster
    options = {"maxiter": 150}
    found = [
        optimize.minimize(objective, start, jac=True, method="L-BFGS-B", bounds=[(-4, 4)] * len(start), options=options)
        for start in starts
    ]
    theta = centre + width * min(found, key=lambda result: float(result.fun)).x
    _, jacobian_NP = curve.jacobian(theta[:num])
    factor = linalg.cho_factor(residual.terms(theta[num:]).sum(axis=0), lower=True, check_finite=False)
    precision = jacobian_NP.T @ linalg.cho_solve(factor, jacobian_NP) + np.diag(curve.width_P**-2)
    return Joint(curve, theta[:num], np.linalg.inv(precision), theta[num:])


def at_end(points: Points, x_CM: Array, cells: NDArray[np.int64], log_t: float) -> Points:
    """C cells at one time, for `Joint.draws`."""
    return replace(points, x_NM=x_CM, log_t_N=np.full(len(x_CM), log_t), cell_N=cells, y_N=np.zeros(len(x_CM)))
