"""BoTorch's Gaussian process of learning curves (arXiv 2410.09239): what every setting's loss may be at full length.

The covariance of two points of two curves is a product, of a kernel of settings and a kernel of time, and curves may
end anywhere. What all curves have in common at each time is taken off first: the model then need not learn that losses
fall, nor that only promising settings are trained far.

BoTorch and with it torch are imported when a prediction is asked for, not before, and by name, since the thinking wing
does without torch. Torch's random numbers are left as they were.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np

from marslora.core.arrays import Array
from marslora.core.errors import ConfigError
from marslora.core.runs import Run
from marslora.core.seeds import derive
from marslora.core.setting import Setting
from marslora.strategies._problem import MIN_STEPS, Problem

NUM_DRAWS = 1000
"""Draws of the losses at full length."""
MAX_ITERATIONS = 40
"""Steps of L-BFGS that fit the constants of the kernels. A compromise: with more, a decision takes longer."""
LEAST_SPREAD = 1e-8
"""Log losses that differ less than this have nothing to be fitted to."""
STEP_OF_ONE = 2.0
"""Step in log2 from the one rank of a ladder down to 0: ladders of more ranks say how long theirs is."""

Curves = Literal["validation", "training"]
"""Which losses are read: validation losses alone, or training losses (of the first pass over the rows) as well."""


@dataclass(frozen=True)
class Prediction:
    """What C candidates may reach in a full run, in log nats per answer token."""

    mean_C: Array
    draws_SC: Array


def predict_full_losses(problem: Problem, runs: Sequence[Run], curves: Curves) -> Prediction | None:
    """The log losses at full length; None if the runs cannot be fitted."""
    measured = list_curves(problem, runs, curves)
    ordered = ((c, tuple(sorted(curve.items()))) for c, curve in sorted(measured.items()))
    return _predict_curves(problem, tuple(ordered)) if len(measured) > 1 else None


@lru_cache(maxsize=256)  # a search asks the same question again whenever it re-enacts its rounds
def _predict_curves(
    problem: Problem, curves: tuple[tuple[int, tuple[tuple[float, float], ...]], ...]
) -> Prediction | None:
    measured = {c: dict(curve) for c, curve in curves}
    tools = import_botorch()
    x_CF = describe_settings(problem)
    rows = list(measured)
    times = sorted({t for curve in measured.values() for t in curve})
    y_NT = np.array([[measured[c].get(t, np.nan) for t in times] for c in rows])
    if np.nanstd(y_NT) < LEAST_SPREAD:
        return None
    time_T = scale_times(problem, times)
    trend_T, end = measure_trend(y_NT, time_T)
    with warnings.catch_warnings(), tools.manual_seed(derive(problem.seed, "kronecker") % 2**31):
        warnings.simplefilter("ignore")
        try:
            rest_C, cov_CC = _fit_and_predict(tools, x_CF[rows], time_T, y_NT - trend_T, x_CF)
        except (RuntimeError, ValueError, tools.BotorchError):
            return None
    mean_C = rest_C + end
    if not np.isfinite(mean_C).all() or not np.isfinite(cov_CC).all():
        return None
    rng = np.random.default_rng(derive(problem.seed, "kronecker draws"))
    vary, across = np.linalg.eigh((cov_CC + cov_CC.T) / 2)
    noise_SC = rng.standard_normal((NUM_DRAWS, len(mean_C)))
    return Prediction(mean_C, mean_C + (noise_SC * np.sqrt(np.maximum(vary, 0.0))) @ across.T)


def _fit_and_predict(tools: Any, x_NF: Array, t_T: Array, y_NT: Array, x_CF: Array) -> tuple[Array, Array]:
    """Mean and covariance of the candidates at time 1, the full length."""
    torch = tools.torch
    time_kernel = tools.MaternKernel(nu=2.5, lengthscale_prior=tools.LogNormalPrior(0.0, 1.0))
    model = tools.LatentKroneckerGP(
        *(torch.tensor(each, dtype=torch.float64) for each in (x_NF, t_T[:, None], y_NT)),
        likelihood=tools.make_likelihood(),
        covar_module_X=tools.make_kernel(ard_num_dims=x_NF.shape[1], use_rbf_kernel=True),
        covar_module_T=tools.ScaleKernel(time_kernel, outputscale_prior=tools.LogNormalPrior(0.0, 1.0)),
    ).double()
    likelihood = tools.ExactMarginalLogLikelihood(model.likelihood, model)
    try:
        tools.fit(likelihood, optimizer_kwargs={"options": {"maxiter": MAX_ITERATIONS}}, max_attempts=1)
    except tools.BotorchError:
        model.eval()
    with torch.no_grad():
        end = torch.ones(1, 1, dtype=torch.float64)
        found = model.posterior(torch.tensor(x_CF, dtype=torch.float64), end).distribution
        shift, scale = model.outcome_transform.means.item(), model.outcome_transform.stdvs.item()
        mean, cov = found.mean.numpy().reshape(-1), found.covariance_matrix.numpy().reshape(len(x_CF), len(x_CF))
    return mean * scale + shift, cov * scale**2


def list_curves(problem: Problem, runs: Sequence[Run], curves: Curves) -> dict[int, dict[float, float]]:
    """Log losses by candidate and examples, from the runs on all rows.

    Of a run that diverged, the loss that it ended with counts as that of the untouched model: it is at least as bad.
    """
    index = {setting: number for number, setting in enumerate(problem.candidates())}
    least = min(MIN_STEPS * problem.batch_size, problem.full_examples)
    found: dict[int, dict[float, float]] = {}
    for run in sorted(runs, key=lambda run: run.member.id):
        place = index.get(run.member.setting)
        if place is None or run.member.data_examples != problem.num_train or run.status == "failed":
            continue
        points = {float(t): loss for t, loss in zip(run.examples, run.validation_loss, strict=True) if t >= least}
        if curves == "training":
            points = _list_training(problem, run, least) | points
        if run.status == "diverged" and run.validation_loss:
            points[float(max(run.last_examples, least))] = run.validation_loss[0]
        if usable := {t: float(np.log(loss)) for t, loss in points.items() if 0 < loss < np.inf}:
            found.setdefault(place, {}).update(usable)
    return found


def _list_training(problem: Problem, run: Run, least: float) -> dict[float, float]:
    """Training losses in the first pass over the rows, each in the middle of the examples that it is the mean of."""
    starts = (0, *run.train_examples)
    steps = zip(starts, run.train_examples, run.train_loss, strict=False)
    return {(start + end) / 2: loss for start, end, loss in steps if least <= end <= problem.num_train}


def measure_trend(y_NT: Array, t_T: Array) -> tuple[Array, float]:
    """What all curves have in common at each time, and at time 1, by least squares with a level for every setting.

    It holds that the rows of a batch are easy or hard for every setting. Beyond the last time it is a straight line.
    """
    n, t = np.nonzero(np.isfinite(y_NT))
    design = np.zeros((len(n), len(y_NT) + len(t_T)))
    design[np.arange(len(n)), n] = 1.0
    design[np.arange(len(n)), len(y_NT) + t] = 1.0
    trend_T: Array = np.asarray(np.linalg.lstsq(design, y_NT[n, t], rcond=None)[0][len(y_NT) :], dtype=np.float64)
    if len(t_T) < 2:
        return trend_T, float(trend_T[-1])
    slope, start = np.polyfit(t_T, trend_T, 1)
    return trend_T, float(start + slope)


def scale_times(problem: Problem, times: Sequence[float]) -> Array:
    """Log examples: 0 for the shortest run there may be, 1 for a full one."""
    least = min(MIN_STEPS * problem.batch_size, problem.full_examples / 2)
    scaled: Array = np.log(np.array(times) / least) / np.log(problem.full_examples / least)
    return scaled


@lru_cache(maxsize=16)
def describe_settings(problem: Problem) -> Array:
    """Log ranks, log learning rate and the parts' own factors of every candidate, each from 0 to 1; (C, F)."""
    candidates = problem.candidates()
    columns = [[_log_rank(problem, part, each.allocation[part]) for each in candidates] for part in problem.space.parts]
    columns.append([np.log(each.learning_rate or 1.0) for each in candidates])
    columns += [[_log_factor(each, part) for each in candidates] for part, _ in problem.part_rate_factors]
    x_CF = np.array(columns).T
    low_F, high_F = x_CF.min(axis=0), x_CF.max(axis=0)
    varied_F = high_F > low_F
    scaled: Array = ((x_CF - low_F) / np.where(varied_F, high_F - low_F, 1.0))[:, varied_F]
    return scaled if scaled.shape[1] else np.zeros((len(candidates), 1))


def _log_rank(problem: Problem, part: str, rank: int) -> float:
    """Log2 of a rank; 0 lies one step of the ladder below the least."""
    if rank:
        return float(np.log2(rank))
    above = [float(np.log2(each)) for each in problem.space.ladder(part) if each] or [0.0]
    step = (above[-1] - above[0]) / (len(above) - 1) if len(above) > 1 else STEP_OF_ONE
    return above[0] - step


def _log_factor(setting: Setting, part: str) -> float:
    own, common = setting.rate_of(part), setting.learning_rate
    return float(np.log(own / common)) if own and common else 0.0


@lru_cache(maxsize=1)
def import_botorch() -> Any:
    """What is used of BoTorch, by name; `ConfigError` without it."""
    wanted: Mapping[str, str] = {
        "LatentKroneckerGP": "botorch.models.latent_kronecker_gp",
        "get_covar_module_with_dim_scaled_prior": "botorch.models.utils.gpytorch_modules",
        "get_gaussian_likelihood_with_lognormal_prior": "botorch.models.utils.gpytorch_modules",
        "fit_gpytorch_mll": "botorch.fit",
        "manual_seed": "botorch.utils.sampling",
        "BotorchError": "botorch.exceptions.errors",
        "ExactMarginalLogLikelihood": "gpytorch.mlls",
        "MaternKernel": "gpytorch.kernels",
        "ScaleKernel": "gpytorch.kernels",
        "LogNormalPrior": "gpytorch.priors",
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = {name: getattr(importlib.import_module(module), name) for name, module in wanted.items()}
            found["torch"] = importlib.import_module("torch")
    except ImportError as error:
        raise ConfigError(
            f"The strategy `kronecker_gp` needs BoTorch 0.18 or later, found: {error}. "
            "Install it with `pip install 'marslora[bench]'`, or choose another strategy."
        ) from error
    return SimpleNamespace(
        **found,
        make_kernel=found["get_covar_module_with_dim_scaled_prior"],
        make_likelihood=found["get_gaussian_likelihood_with_lognormal_prior"],
        fit=found["fit_gpytorch_mll"],
    )
