"""Minimising the robust error of a form on a sample: projected Levenberg-Marquardt on many problems at once.

Practice follows Transtrum and Sethna 2012 (geodesic acceleration) and Hoffmann et al. 2022 (log residuals, Huber).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from marslora.core.arrays import Array
from marslora.laws.form import Form, Inputs

MAX_STEPS = 200
"""Steps of one minimisation at most. A guard by convention."""
MAX_STALLED = 12
"""Steps without gain after which a minimisation ends. A convention."""
GRADIENT_TOLERANCE, ROUGH = 1e-6, 1e-2
"""In standard errors of a parameter: for a reported fit, and for bootstrap replicates and starts."""
MOST_ENTRIES = 1 << 16
"""Points times problems that are minimised together: their arrays then fit into the caches of a processor."""
MOST_DIFFERENT = 0.5
"""Share of different inputs among the points up to which points at the same inputs are added up."""


@dataclass(frozen=True)
class Sample:
    """N measurements. A censored one is known to be larger than its value."""

    x: Inputs
    y_N: Array
    censored_N: NDArray[np.bool_]
    group_N: NDArray[np.int64]
    """Which run a point belongs to: runs, not points, are resampled."""

    def __len__(self) -> int:
        return len(self.y_N)

    def thin(self, most: int) -> Sample:
        """At most ``most`` of the points, always the same ones."""
        if len(self) <= most:
            return self
        kept = np.sort(np.random.default_rng(0).choice(len(self), most, replace=False))
        x = {name: values[kept] for name, values in self.x.items()}
        return Sample(x, self.y_N[kept], self.censored_N[kept], self.group_N[kept])


@dataclass(frozen=True)
class Optimum:
    """B minimisations of one form."""

    inner_BP: Array
    objective_B: Array
    gradient_B: Array
    """Largest free component of the gradient, relative to the objective's scale."""


def minimise(
    form: Form,
    sample: Sample,
    start_BP: Array,
    weight_BN: Array,
    noise: float,
    huber: float,
    tolerance: float = 1e-2 * GRADIENT_TOLERANCE,
) -> Optimum:
    """Projected Levenberg-Marquardt with geodesic acceleration on B problems, many at once."""
    task = _Minimisation(form, sample, noise, huber)
    weight_BN = task.sort(weight_BN)
    size = max(1, MOST_ENTRIES // max(1, len(sample)))
    found = [
        _minimise_batch(task, start_BP[first : first + size], weight_BN[first : first + size], tolerance)
        for first in range(0, max(1, len(start_BP)), size)
    ]
    return Optimum(
        np.concatenate([each.inner_BP for each in found]),
        np.concatenate([each.objective_B for each in found]),
        np.concatenate([each.gradient_B for each in found]),
    )


def _minimise_batch(task: _Minimisation, start_BP: Array, weight_BN: Array, tolerance: float) -> Optimum:
    """The minimisation of B problems at once; finished ones leave the batch."""
    inner_BP = np.clip(start_BP, task.low_P, task.high_P)
    at = _expand(task, inner_BP, weight_BN)
    damping_B, stalled_B = np.full(len(inner_BP), 1e-3), np.zeros(len(inner_BP), dtype=np.int64)
    error_B = _measure_gradient(task, inner_BP, at)
    for _ in range(MAX_STEPS):
        todo = np.flatnonzero((error_B > tolerance) & (stalled_B < MAX_STALLED))
        if not len(todo):
            break
        here = at.rows(todo)
        trial = _take_step(task, inner_BP[todo], here, damping_B[todo])
        new = _expand(task, trial, weight_BN[todo])
        better = new.objective_B <= here.objective_B
        gained = better & (here.objective_B - new.objective_B > 1e-13 * here.objective_B)
        stalled_B[todo] = np.where(gained, 0, stalled_B[todo] + 1)
        damping_B[todo] = np.clip(np.where(better, damping_B[todo] / 5, damping_B[todo] * 4), 1e-12, 1e12)
        took = todo[better]
        inner_BP[took] = trial[better]
        at.put(took, new.rows(np.flatnonzero(better)))
        error_B[took] = _measure_gradient(task, inner_BP[took], at.rows(took))
    return Optimum(inner_BP, at.objective_B, error_B)


class _Minimisation:
    """What stays the same while one form is fitted to one sample.

    Runs of several seeds are measured at the same inputs. The form is evaluated once for each of U different inputs,
    and points are sorted by them.
    """

    def __init__(self, form: Form, sample: Sample, noise: float, huber: float) -> None:
        self.form, self.noise, self.huber = form, noise, huber
        stacked_NI = np.column_stack([np.asarray(values) for values in sample.x.values()])
        _, first_U, index_N = np.unique(stacked_NI, axis=0, return_index=True, return_inverse=True)
        self.is_repeated = len(first_U) <= MOST_DIFFERENT * len(sample)
        if self.is_repeated:
            self.order_N = np.argsort(index_N, kind="stable")
            self.index_N = index_N[self.order_N]
            self.begin_U = np.searchsorted(self.index_N, np.arange(len(first_U)))
        else:
            first_U = self.order_N = np.arange(len(sample))
        self.x: Inputs = {name: values[first_U] for name, values in sample.x.items()}
        self.log_y_N, self.censored_N = np.log(sample.y_N[self.order_N]), sample.censored_N[self.order_N]
        middle, num = float(np.median(self.log_y_N)), len(form.coefficients)
        self.low_P = np.array([middle - 25.0] * num + [shape.low for shape in form.shapes])
        self.high_P = np.array([middle + 15.0] * num + [shape.high for shape in form.shapes])
        self.prior_P = np.array([0.0] * num + [shape.prior**-2 for shape in form.shapes])

    def sort(self, values_BN: Array) -> Array:
        """Values of the sample's points in the order of this task."""
        return values_BN[:, self.order_N] if self.is_repeated else values_BN

    def repeat(self, values_BU: Array) -> Array:
        """Values at the different inputs for every point."""
        return values_BU[:, self.index_N] if self.is_repeated else values_BU

    def add_up(self, values_BN: Array) -> Array:
        """Sums of the points' values at each of the different inputs."""
        return np.add.reduceat(values_BN, self.begin_U, axis=1) if self.is_repeated else values_BN


@dataclass(frozen=True)
class _Expansion:
    """The penalised robust likelihood around B points, to second order."""

    objective_B: Array
    gradient_BP: Array
    hessian_BPP: Array
    """Gauss-Newton."""
    pull_BUP: Array
    """Jacobian times weight and curvature: what turns a change of log f into a gradient."""

    def rows(self, chosen: NDArray[np.int64]) -> _Expansion:
        """The expansion around some of the points."""
        return _Expansion(*(values[chosen] for values in vars(self).values()))

    def put(self, chosen: NDArray[np.int64], new: _Expansion) -> None:
        """Replace the expansion around some of the points."""
        for values, replaced in zip(vars(self).values(), vars(new).values(), strict=True):
            values[chosen] = replaced


def _expand(task: _Minimisation, inner_BP: Array, weight_BN: Array) -> _Expansion:
    log_f_BU, jacobian_BUP = task.form.log_value_and_jacobian(task.x, inner_BP)
    z_BN = (task.repeat(log_f_BU) - task.log_y_N) / task.noise
    root_BN = np.sqrt(1.0 + (z_BN / task.huber) ** 2)
    loss_BN = z_BN**2 / (1.0 + root_BN)
    slope_BN, curve_BN = z_BN / root_BN, 1.0 / root_BN
    if task.censored_N.any():
        # Tobit: the chance that the true value lies above the bound is Phi(z).
        z = z_BN[:, task.censored_N]
        log_tail = log_ndtr(z)
        hazard = np.exp(-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - log_tail)
        loss_BN[:, task.censored_N] = -log_tail
        slope_BN[:, task.censored_N] = -hazard
        curve_BN[:, task.censored_N] = np.clip(hazard * (hazard + z), 1e-9, 1.0)
    objective_B = (weight_BN * loss_BN).sum(1) + 0.5 * (inner_BP**2 * task.prior_P).sum(1)
    force_BU = task.add_up(weight_BN * slope_BN / task.noise)
    pull_BUP = jacobian_BUP * task.add_up(weight_BN * curve_BN / task.noise**2)[..., None]
    return _Expansion(
        objective_B=np.nan_to_num(objective_B, nan=np.inf, posinf=np.inf),
        gradient_BP=np.matmul(force_BU[:, None, :], jacobian_BUP)[:, 0] + inner_BP * task.prior_P,
        hessian_BPP=np.matmul(pull_BUP.transpose(0, 2, 1), jacobian_BUP) + np.diag(task.prior_P),
        pull_BUP=pull_BUP,
    )


def _take_step(task: _Minimisation, inner_BP: Array, at: _Expansion, damping_B: Array) -> Array:
    """Where a damped Gauss-Newton step along the curve of the model leads.

    The second-order part (Transtrum and Sethna 2012) follows the long bent valleys of sums of powers. Parameters that
    the gradient holds at a bound stay there.
    """
    held_BP = _find_held(task, inner_BP, at.gradient_BP)
    free_BP = (~held_BP).astype(float)
    diagonal_BP = np.maximum(np.einsum("bpp->bp", at.hessian_BPP), 1e-9)
    matrix_BPP = at.hessian_BPP * free_BP[:, :, None] * free_BP[:, None, :]
    added_BP = np.where(held_BP, 1.0, damping_B[:, None] * diagonal_BP + 1e-12)
    inverse_BPP = np.linalg.inv(matrix_BPP + added_BP[:, :, None] * np.eye(inner_BP.shape[1]))
    first_BP = np.clip(np.matmul(inverse_BPP, -(at.gradient_BP * free_BP)[..., None])[..., 0], -3.0, 3.0)
    probe_BP, x = 0.1 * first_BP, task.x
    bend_BU = task.form.log_value(x, inner_BP + probe_BP) + task.form.log_value(x, inner_BP - probe_BP)
    bend_BU = (bend_BU - 2 * task.form.log_value(x, inner_BP)) / 0.01
    pull_BP = np.matmul(bend_BU[:, None, :], at.pull_BUP)[:, 0] * free_BP
    second_BP = -0.5 * np.matmul(inverse_BPP, pull_BP[..., None])[..., 0]
    ratio_B = np.linalg.norm(second_BP, axis=1) / (np.linalg.norm(first_BP, axis=1) + 1e-300)
    bent_BP = np.where((ratio_B < 0.75)[:, None], second_BP, 0.0)
    return np.asarray(np.clip(inner_BP + first_BP + bent_BP, task.low_P, task.high_P))


def _find_held(task: _Minimisation, inner_BP: Array, gradient_BP: Array) -> NDArray[np.bool_]:
    at_low, at_high = inner_BP <= task.low_P + 1e-12, inner_BP >= task.high_P - 1e-12
    return np.asarray((at_low & (gradient_BP > 0)) | (at_high & (gradient_BP < 0)), dtype=bool)


def _measure_gradient(task: _Minimisation, inner_BP: Array, at: _Expansion) -> Array:
    """Largest |g_p| / sqrt(H_pp), free parameters only: how many standard errors a step would still move."""
    free_BP = ~_find_held(task, inner_BP, at.gradient_BP)
    scale_BP = np.sqrt(np.maximum(np.einsum("bpp->bp", at.hessian_BPP), 0.0)) + 1e-3
    return np.asarray(np.max(np.where(free_BP, np.abs(at.gradient_BP) / scale_BP, 0.0), axis=1, initial=0.0))
