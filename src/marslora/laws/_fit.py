"""Fitting a form: log residuals, Huber loss, censoring, variable projection for the starts, then Levenberg-Marquardt.

Everything is batched: many starts, bootstrap weights or left-out groups are rows of one array, so five hundred
fits of a 48-point law take seconds. Practice follows Hoffmann et al. 2022 (log loss, Huber, many starts), Besiroglu et al. 2024
(tight tolerances, gradient checked) and variable projection (Golub and Pereyra 1973).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr
from scipy.stats import qmc

from marslora.laws._form import Array, Form, Inputs

HUBER = 1.345
"""Where the loss turns from square to linear, in noise standard deviations."""
NUM_GRID, NUM_STARTS, NUM_KEPT, NUM_BOOTSTRAP_STARTS = 512, 12, 4, 2
MAX_STEPS = 400
GRADIENT_TOLERANCE = 1e-6
DEFAULT_NOISE, LEAST_NOISE = 0.05, 1e-4
"""Standard deviation of log residuals where there are too few points to estimate it, and the least one assumed."""


@dataclass(frozen=True)
class Sample:
    """N measurements. A censored one is known to be larger than its value."""

    x: Inputs
    y_N: Array
    censored_N: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    group_N: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    """Which run a point belongs to: runs, not points, are resampled."""

    def __len__(self) -> int:
        return len(self.y_N)


@dataclass(frozen=True)
class Optimum:
    """B minimisations of one form."""

    inner_BP: Array
    objective_B: Array
    gradient_B: Array
    """Largest free component of the gradient, relative to the objective's scale."""

    @property
    def converged_B(self) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Which minimisations ended at a stationary point."""
        return np.asarray(self.gradient_B <= GRADIENT_TOLERANCE, dtype=bool)


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
        return np.exp(self.form.log_value(x, self.inner_P[None])[0])


def fit_form(form: Form, sample: Sample) -> Fitted:
    """The best fit over many starts. Raises nothing on odd data; look at ``converged`` and ``condition``."""
    start_BP = _starts(form, sample)
    num_starts, noise = len(start_BP), DEFAULT_NOISE
    for huber, num_kept in ((np.inf, NUM_KEPT), (HUBER, NUM_KEPT)):
        optimum = minimise(form, sample, start_BP, np.ones((len(start_BP), len(sample))), noise, huber, max_steps=40)
        start_BP = optimum.inner_BP[np.argsort(optimum.objective_B)[:num_kept]]
        noise = _noise(form, sample, start_BP[0])
    optimum = minimise(form, sample, start_BP, np.ones((len(start_BP), len(sample))), noise, HUBER)
    order = np.argsort(optimum.objective_B)
    best = optimum.inner_BP[order[0]]
    return Fitted(
        form=form,
        inner_P=best,
        noise=noise,
        gradient=float(optimum.gradient_B[order[0]]),
        condition=_condition(form, sample, best),
        num_starts=num_starts,
        starts_SP=_distinct(optimum.inner_BP[order], optimum.objective_B[order]),
    )


def refit(fitted: Fitted, sample: Sample, weight_BN: Array) -> Array:
    """Inner parameters (B, P) of the same form on B other weightings of the points (bootstraps, left-out groups)."""
    best_BP, best_B = None, None
    for start_P in fitted.starts_SP:
        start_BP = np.repeat(start_P[None], len(weight_BN), axis=0)
        optimum = minimise(fitted.form, sample, start_BP, weight_BN, fitted.noise, HUBER, max_steps=40)
        if best_BP is None or best_B is None:
            best_BP, best_B = optimum.inner_BP, optimum.objective_B
        else:
            better_B = optimum.objective_B < best_B - 1e-9
            best_BP = np.where(better_B[:, None], optimum.inner_BP, best_BP)
            best_B = np.minimum(optimum.objective_B, best_B)
    assert best_BP is not None
    return best_BP


def minimise(
    form: Form,
    sample: Sample,
    start_BP: Array,
    weight_BN: Array,
    noise: float,
    huber: float,
    max_steps: int = MAX_STEPS,
) -> Optimum:
    """Projected Levenberg-Marquardt on B problems at once; finished ones leave the batch."""
    low_P, high_P = _bounds(form, sample)
    inner_BP = np.clip(start_BP, low_P, high_P)
    objective_B, gradient_BP, hessian_BPP = _expand(form, sample, inner_BP, weight_BN, noise, huber)
    damping_B = np.full(len(inner_BP), 1e-3)
    error_B = _relative_gradient(inner_BP, gradient_BP, hessian_BPP, low_P, high_P)
    stalled_B = np.zeros(len(inner_BP), dtype=np.int64)
    for _ in range(max_steps):
        todo = np.flatnonzero((error_B > GRADIENT_TOLERANCE * 1e-2) & (stalled_B < 12))
        if not len(todo):
            break
        trial = _step(inner_BP[todo], gradient_BP[todo], hessian_BPP[todo], damping_B[todo], low_P, high_P)
        value, gradient, hessian = _expand(form, sample, trial, weight_BN[todo], noise, huber)
        better = value <= objective_B[todo]
        took = todo[better]
        stalled_B[todo] = np.where(
            better & (objective_B[todo] - value > 1e-13 * objective_B[todo]), 0, stalled_B[todo] + 1
        )
        inner_BP[took], objective_B[took] = trial[better], value[better]
        gradient_BP[took], hessian_BPP[took] = gradient[better], hessian[better]
        damping_B[todo] = np.clip(np.where(better, damping_B[todo] / 5, damping_B[todo] * 4), 1e-12, 1e12)
        error_B[took] = _relative_gradient(inner_BP[took], gradient[better], hessian[better], low_P, high_P)
    return Optimum(inner_BP, objective_B, error_B)


def _expand(
    form: Form, sample: Sample, inner_BP: Array, weight_BN: Array, noise: float, huber: float
) -> tuple[Array, Array, Array]:
    """Objective (B,), gradient (B, P) and Gauss-Newton Hessian (B, P, P) of the penalised robust likelihood."""
    log_f_BN, jacobian_BNP = form.log_value_and_jacobian(sample.x, inner_BP)
    z_BN = (log_f_BN - np.log(sample.y_N)) / noise
    size_BN = np.abs(z_BN)
    loss_BN = np.where(size_BN <= huber, 0.5 * z_BN**2, 0.0)
    slope_BN, curve_BN = z_BN.copy(), np.ones_like(z_BN)
    if np.isfinite(huber):
        far = size_BN > huber
        loss_BN[far] = huber * (size_BN[far] - 0.5 * huber)
        slope_BN[far] = huber * np.sign(z_BN[far])
        curve_BN[far] = huber / size_BN[far]
    if sample.censored_N.any():
        # Tobit: the chance that the true value lies above the bound is Phi(z).
        z = z_BN[:, sample.censored_N]
        log_tail = log_ndtr(z)
        hazard = np.exp(-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - log_tail)
        loss_BN[:, sample.censored_N] = -log_tail
        slope_BN[:, sample.censored_N] = -hazard
        curve_BN[:, sample.censored_N] = np.clip(hazard * (hazard + z), 1e-9, 1.0)
    inverse_P = np.array([0.0] * len(form.coefficients) + [shape.prior**-2 for shape in form.shapes])
    objective_B = (weight_BN * loss_BN).sum(1) + 0.5 * (inner_BP**2 * inverse_P).sum(1)
    gradient_BP = np.einsum("bn,bnp->bp", weight_BN * slope_BN / noise, jacobian_BNP) + inner_BP * inverse_P
    scaled_BNP = jacobian_BNP * (weight_BN * curve_BN / noise**2)[..., None]
    hessian_BPP = np.matmul(scaled_BNP.transpose(0, 2, 1), jacobian_BNP) + np.diag(inverse_P)
    return np.nan_to_num(objective_B, nan=np.inf, posinf=np.inf), gradient_BP, hessian_BPP


def _step(
    inner_BP: Array, gradient_BP: Array, hessian_BPP: Array, damping_B: Array, low_P: Array, high_P: Array
) -> Array:
    """One damped Gauss-Newton step; parameters held at a bound by the gradient stay there."""
    held_BP = _held(inner_BP, gradient_BP, low_P, high_P)
    diagonal_BP = np.maximum(np.einsum("bpp->bp", hessian_BPP), 1e-9)
    free_BP = (~held_BP).astype(float)
    matrix_BPP = hessian_BPP * free_BP[:, :, None] * free_BP[:, None, :]
    added_BP = np.where(held_BP, 1.0, damping_B[:, None] * diagonal_BP + 1e-12)
    matrix_BPP = matrix_BPP + added_BP[:, :, None] * np.eye(inner_BP.shape[1])
    step_BP = np.linalg.solve(matrix_BPP, -(gradient_BP * free_BP)[..., None])[..., 0]
    return np.clip(inner_BP + np.clip(step_BP, -3.0, 3.0), low_P, high_P)


def _held(
    inner_BP: Array, gradient_BP: Array, low_P: Array, high_P: Array
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    at_low, at_high = inner_BP <= low_P + 1e-12, inner_BP >= high_P - 1e-12
    return np.asarray((at_low & (gradient_BP > 0)) | (at_high & (gradient_BP < 0)), dtype=bool)


def _relative_gradient(inner_BP: Array, gradient_BP: Array, hessian_BPP: Array, low_P: Array, high_P: Array) -> Array:
    """Largest |g_p| / sqrt(H_pp), free parameters only: how many standard errors a step would still move."""
    free_BP = ~_held(inner_BP, gradient_BP, low_P, high_P)
    scale_BP = np.sqrt(np.maximum(np.einsum("bpp->bp", hessian_BPP), 0.0)) + 1e-3
    result: Array = np.max(np.where(free_BP, np.abs(gradient_BP) / scale_BP, 0.0), axis=1, initial=0.0)
    return result


def _bounds(form: Form, sample: Sample) -> tuple[Array, Array]:
    middle, num = float(np.log(np.median(sample.y_N))), len(form.coefficients)
    low = [middle - 25.0] * num + [shape.low for shape in form.shapes]
    high = [middle + 15.0] * num + [shape.high for shape in form.shapes]
    return np.array(low), np.array(high)


def _starts(form: Form, sample: Sample) -> Array:
    """The best of many settings of the shapes, each with its coefficients solved by non-negative least squares."""
    shape_GQ = _grid(form)
    phi_GNJ = form.basis(sample.x, shape_GQ) / sample.y_N[None, :, None]
    coefficient_GJ, loss_G = _nonnegative(phi_GNJ)
    order = np.argsort(loss_G)
    near, far = NUM_STARTS // 2, NUM_STARTS - NUM_STARTS // 2
    spread = np.linspace(near, max(near, len(order) // 2), far).astype(int)
    chosen = order[np.unique(np.clip(np.concatenate([np.arange(near), spread]), 0, len(order) - 1))]
    least = 1e-6 * float(np.median(sample.y_N))
    log_c = np.log(np.maximum(coefficient_GJ[chosen], least))
    return np.concatenate([log_c, shape_GQ[chosen]], axis=1)


def _grid(form: Form) -> Array:
    """Settings of the shapes: a scrambled Sobol sequence in their box, the same every time."""
    if not form.shapes:
        return np.zeros((1, 0))
    low, high = [shape.low for shape in form.shapes], [shape.high for shape in form.shapes]
    points = qmc.Sobol(len(form.shapes), scramble=True, seed=0).random(NUM_GRID)
    return np.asarray(qmc.scale(points, low, high), dtype=np.float64)


def _nonnegative(phi_GNJ: Array) -> tuple[Array, Array]:
    """Non-negative least squares of ``phi c = 1`` for G designs by trying every set of active columns (J is small)."""
    num_designs, num_points, num = phi_GNJ.shape
    scale_GJ = np.maximum(np.abs(phi_GNJ).max(axis=1), 1e-300)
    design = phi_GNJ / scale_GJ[:, None, :]
    gram_GJJ = np.matmul(design.transpose(0, 2, 1), design)
    target_GJ = design.sum(axis=1)
    best_GJ, best_G = np.zeros((num_designs, num)), np.full(num_designs, float(num_points))
    for size in range(1, num + 1):
        for active in itertools.combinations(range(num), size):
            rows = np.ix_(np.arange(num_designs), active, active)
            gram = gram_GJJ[rows] + 1e-10 * np.eye(size)
            solved = np.linalg.solve(gram, target_GJ[:, active, None])[..., 0]
            loss_G = num_points - np.einsum("ga,ga->g", solved, target_GJ[:, active])
            better = (solved >= 0).all(axis=1) & (loss_G < best_G)
            best_G = np.where(better, loss_G, best_G)
            best_GJ[better] = 0.0
            best_GJ[np.ix_(better, active)] = solved[better]
    return best_GJ / scale_GJ, best_G


def _noise(form: Form, sample: Sample, inner_P: Array) -> float:
    """Standard deviation of the uncensored log residuals, outliers pulled in, degrees of freedom counted."""
    residual = (form.log_value(sample.x, inner_P[None])[0] - np.log(sample.y_N))[~sample.censored_N]
    freedom = len(residual) - len(inner_P)
    if freedom < 1:
        return DEFAULT_NOISE
    limit = 3 * 1.4826 * float(np.median(np.abs(residual))) + 1e-12
    pulled = np.clip(residual, -limit, limit)
    return float(np.clip(np.sqrt((pulled**2).sum() / freedom), LEAST_NOISE, 1.0))


def _condition(form: Form, sample: Sample, inner_P: Array) -> float:
    """Condition number of the Jacobian with columns scaled to length 1; infinity where a column is 0."""
    jacobian = form.log_value_and_jacobian(sample.x, inner_P[None])[1][0][~sample.censored_N]
    length = np.linalg.norm(jacobian, axis=0) if len(jacobian) else np.zeros(len(inner_P))
    if len(jacobian) < len(inner_P) or (length < 1e-12).any():
        return float("inf")
    return float(np.linalg.cond(jacobian / length))


def _distinct(inner_SP: Array, objective_S: Array) -> Array:
    """Up to `NUM_BOOTSTRAP_STARTS` end points that differ, best first."""
    kept = [inner_SP[0]]
    for inner_P, objective in zip(inner_SP[1:], objective_S[1:], strict=True):
        near = objective <= objective_S[0] + 4.0
        if near and len(kept) < NUM_BOOTSTRAP_STARTS and min(np.abs(inner_P - other).max() for other in kept) > 0.05:
            kept.append(inner_P)
    return np.array(kept)
