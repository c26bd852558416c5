"""Fitting a form: log residuals, Huber loss, censoring, variable projection for the starts, then Levenberg-Marquardt.

Everything is batched: many starts, bootstrap weights or left-out groups are rows of one array, so five hundred
fits of a 48-point law take a second. Practice follows Hoffmann et al. 2022 (log loss, Huber, many starts),
Besiroglu et al. 2024 (tight tolerances, gradient checked) and variable projection (Golub and Pereyra 1973).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from marslora.core.arrays import Array
from marslora.laws.form import Form, Inputs
from marslora.laws.minimising import GRADIENT_TOLERANCE, ROUGH, Sample, minimise

HUBER = 2.0
"""Residual, in standard deviations of the noise, at which the loss turns from square to linear (smoothly: the
pseudo-Huber loss). A convention: 5 % of Gaussian residuals lie beyond."""
NUM_GRID, NUM_STARTS, NUM_KEPT, NUM_BOOTSTRAP_STARTS = 512, 12, 4, 2
"""Settings of the shapes that are tried, those from which a fit starts, those that are followed to the end, and those
from which each replicate starts. Conventions, small enough for 500 replicates of a 48-point law in about a second
(benchmarks/laws_speed.json)."""
MOST_SEARCHED = 300
"""Points on which starts are searched; of more, as many are drawn. Those that are followed to the end see all."""
DEFAULT_NOISE, LEAST_NOISE = 0.05, 1e-4
"""Standard deviation of log residuals if there are too few points to estimate it, and the least one that is assumed."""


@dataclass(frozen=True)
class Fitted:
    """One fitted form with the noise it implies."""

    form: Form
    inner_P: Array
    noise: float
    """Standard deviation of log residuals."""
    gradient: float
    condition: float
    num_starts: int
    starts_SP: Array
    """The best distinct end points, best first: where refits on other weights start."""

    @property
    def converged(self) -> bool:
        """The gradient is zero within tolerance."""
        return self.gradient <= GRADIENT_TOLERANCE

    def predict(self, x: Inputs) -> Array:
        """f at N points."""
        value_N: Array = np.exp(self.form.log_value(x, self.inner_P[None])[0])
        return value_N


def fit_form(form: Form, sample: Sample) -> Fitted:
    """The best fit over many starts. It does not raise on odd data: look at ``converged`` and ``condition``."""
    searched = sample.thin(MOST_SEARCHED)
    start_BP = _pick_starts(form, searched)
    num_starts, noise = len(start_BP), DEFAULT_NOISE
    for huber, num_kept in ((np.inf, NUM_KEPT), (HUBER, NUM_KEPT)):
        optimum = minimise(form, searched, start_BP, np.ones((len(start_BP), len(searched))), noise, huber, ROUGH)
        start_BP = optimum.inner_BP[np.argsort(optimum.objective_B)[:num_kept]]
        noise = _estimate_noise(form, sample, start_BP[0])
    optimum = minimise(form, sample, start_BP, np.ones((len(start_BP), len(sample))), noise, HUBER)
    order = np.argsort(optimum.objective_B)
    best, gradient = optimum.inner_BP[order[0]], float(optimum.gradient_B[order[0]])
    return Fitted(
        form=form,
        inner_P=best,
        noise=noise,
        gradient=gradient,
        condition=_measure_condition(form, sample, best),
        num_starts=num_starts,
        starts_SP=_select_distinct(np.vstack([best, optimum.inner_BP[order[1:]]]), optimum.objective_B[order]),
    )


def refit(fitted: Fitted, sample: Sample, weight_BN: Array) -> Array:
    """Inner parameters (B, P) of the same form on B other weightings of the points (bootstraps, left-out groups)."""
    best_BP, best_B = None, None
    for start_P in fitted.starts_SP:
        start_BP = np.repeat(start_P[None], len(weight_BN), axis=0)
        optimum = minimise(fitted.form, sample, start_BP, weight_BN, fitted.noise, HUBER, ROUGH)
        if best_BP is None or best_B is None:
            best_BP, best_B = optimum.inner_BP, optimum.objective_B
        else:
            better_B = optimum.objective_B < best_B - 1e-9
            best_BP = np.where(better_B[:, None], optimum.inner_BP, best_BP)
            best_B = np.minimum(optimum.objective_B, best_B)
    assert best_BP is not None
    return best_BP


def _pick_starts(form: Form, sample: Sample) -> Array:
    """The best of many settings of the shapes, each with its coefficients solved by non-negative least squares."""
    shape_GQ = _spread_shapes(form)
    phi_GNJ = form.basis(sample.x, shape_GQ) / sample.y_N[None, :, None]
    coefficient_GJ, loss_G = _solve_nonnegative(phi_GNJ)
    order = np.argsort(loss_G)
    near, far = NUM_STARTS // 2, NUM_STARTS - NUM_STARTS // 2
    tail = np.linspace(near, max(near, len(order) // 2), far).astype(int)
    chosen = order[np.unique(np.clip(np.concatenate([np.arange(near), tail]), 0, len(order) - 1))]
    least = 1e-6 * float(np.median(sample.y_N))
    log_c = np.log(np.maximum(coefficient_GJ[chosen], least))
    return np.concatenate([log_c, shape_GQ[chosen]], axis=1)


def _spread_shapes(form: Form) -> Array:
    """Settings of the shapes: a scrambled Sobol sequence in their box, the same every time."""
    if not form.shapes:
        return np.zeros((1, 0))
    low, high = [shape.low for shape in form.shapes], [shape.high for shape in form.shapes]
    points = qmc.Sobol(len(form.shapes), scramble=True, seed=0).random(NUM_GRID)
    return np.asarray(qmc.scale(points, low, high), dtype=np.float64)


def _solve_nonnegative(phi_GNJ: Array) -> tuple[Array, Array]:
    """Non-negative least squares of ``phi c = 1`` for G designs by trying every set of active columns (J is small)."""
    num_designs, num_points, num = phi_GNJ.shape
    scale_GJ = np.maximum(np.abs(phi_GNJ).max(axis=1), 1e-300)
    design = phi_GNJ / scale_GJ[:, None, :]
    gram_GJJ = np.matmul(design.transpose(0, 2, 1), design)
    target_GJ = design.sum(axis=1)
    best_GJ, best_G = np.zeros((num_designs, num)), np.full(num_designs, float(num_points))
    for size in range(1, num + 1):
        for active in itertools.combinations(range(num), size):
            gram = gram_GJJ[:, active][:, :, active] + 1e-10 * np.eye(size)
            solved = np.linalg.solve(gram, target_GJ[:, active, None])[..., 0]
            loss_G = num_points - np.einsum("ga,ga->g", solved, target_GJ[:, active])
            better = (solved >= 0).all(axis=1) & (loss_G < best_G)
            best_G = np.where(better, loss_G, best_G)
            best_GJ[better] = 0.0
            best_GJ[np.ix_(better, np.array(active))] = solved[better]
    return best_GJ / scale_GJ, best_G


def _estimate_noise(form: Form, sample: Sample, inner_P: Array) -> float:
    """Standard deviation of the uncensored log residuals, outliers pulled in, degrees of freedom counted."""
    residual = (form.log_value(sample.x, inner_P[None])[0] - np.log(sample.y_N))[~sample.censored_N]
    freedom = len(residual) - len(inner_P)
    if freedom < 1:
        return DEFAULT_NOISE
    limit = 3 * 1.4826 * float(np.median(np.abs(residual))) + 1e-12
    pulled = np.clip(residual, -limit, limit)
    return float(np.clip(np.sqrt((pulled**2).sum() / freedom), LEAST_NOISE, 1.0))


def _measure_condition(form: Form, sample: Sample, inner_P: Array) -> float:
    """Condition number of the Jacobian with columns scaled to length 1; infinity if a column is 0."""
    jacobian = form.log_value_and_jacobian(sample.x, inner_P[None])[1][0][~sample.censored_N]
    length = np.linalg.norm(jacobian, axis=0) if len(jacobian) else np.zeros(len(inner_P))
    if len(jacobian) < len(inner_P) or (length < 1e-12).any():
        return float("inf")
    return float(np.linalg.cond(jacobian / length))


def _select_distinct(inner_SP: Array, objective_S: Array) -> Array:
    """Up to `NUM_BOOTSTRAP_STARTS` end points that differ, best first."""
    kept = [inner_SP[0]]
    for inner_P, objective in zip(inner_SP[1:], objective_S[1:], strict=True):
        near = objective <= objective_S[0] + 4.0
        if near and len(kept) < NUM_BOOTSTRAP_STARTS and min(np.abs(inner_P - other).max() for other in kept) > 0.05:
            kept.append(inner_P)
    return np.array(kept)
