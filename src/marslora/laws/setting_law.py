"""The law of settings: the best loss of a full run of every setting, given short runs of a few. `mars` decides by it.

Let a setting have ranks ``r_p`` (0 for a part that is not trained), a learning rate ``eta`` in the one that is taken to
suit, which is the middle of its ladder, and factors ``f_p`` on it. After ``t`` steps at a constant learning rate its
loss is::

    (1)  L         = floor + (L_start - floor) (1 + k exp(b (log speed + time_power log t - onset)))^(-1/k)
    (2)  speed     = eta^rate_power (base + r_language^alpha + sum over towers of share_p r_p^alpha_p f_p^rate_power)
    (3)  log floor = log L_start - gap + sum over parts of (untrained_p if r_p = 0, else drag_p log r_p)
    (4)  L         is higher by L_start times a soft ramp in log hot while the learning rate is constant,
    (5)  log L     is higher by a later soft ramp in log hot for the best loss of a full run, whose rate decays,
                     with   hot = eta (r_language^c + sum over towers of h_p r_p^c f_p)

So ranks and learning rate trade off as long as the loss falls, all that trains the same parts ends at one floor, and
above a limit, which is lower for larger ranks, the loss rises again. The parameters differ from study to study. Their
prior is a multivariate t distribution around their means over the tables, with as many degrees of freedom as there are
tasks, less one; it is cut into `SCALES`, for each of which the parameters are found by Gauss-Newton steps. The
posterior is sampled around them and weighed by importance. Departures from the curve, and errors of measurement, are
Gaussian (`marslora.laws.setting_kernel`), so given the parameters the rest is exact.

The constants are in ``setting_law.json``: none is set by hand. ``benchmarks/fit_setting_law.py`` learns them from
tables of finished runs, and leaves each task out once to say how well that predicts the others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.stats import chi2

from marslora.core.arrays import Array
from marslora.core.errors import ConfigError
from marslora.laws.setting_curve import Times, compute_heat, compute_log_losses, list_parameters, name_prior
from marslora.laws.setting_features import LANGUAGE, Features
from marslora.laws.setting_kernel import Constants, Points, compute_departures, compute_noise, compute_surprise

SCALES = (0.7, 1.0, 1.5, 2.2, 3.3, 5.0)
"""Widths of the prior of the parameters, in that which the tables have."""
NUM_STEPS = 25
"""Most Gauss-Newton steps for each width. They stop earlier where nothing changes any more."""
DIFFERENCE = 1e-4
"""Step of the finite differences, in prior standard deviations."""
SPREAD = 1.3
"""Width of the distribution that parameters are sampled from, in that of the posterior at its mode."""
NUM_SAMPLES = 1200
"""Samples of the parameters for each width of the prior, before they are weighed."""
MOST_LEFT = 3.0
"""Log time between the furthest measurement and the end of a full run above which no more can surprise: e^-3 of it."""
UNKNOWN_START = 0.5
"""Log loss of the untouched model above the largest that was measured, where nobody measured it.

Of 0.02, 0.1, 0.3, 0.5 and 1, those from 0.3 on did best on sweeps of others (`benchmarks/lora_sweeps.py`).
"""
DRAW_JITTER = 1e-9
"""Added to the variance of predictions, so that draws can be made of settings that are nearly the same."""
CONSTANTS_FILE = Path(__file__).with_name("setting_law.json")
"""The learnt constants."""


@dataclass(frozen=True)
class Measurements:
    """N losses that were measured."""

    setting_N: NDArray[np.int64]
    """Index of the setting."""
    log_share_N: Array
    """Log of the examples seen as a share of a full run; of a training loss, at the middle of its interval."""
    log_loss_N: Array
    is_train_N: Array
    """1 for the mean training loss of an interval, 0 for a validation loss."""
    batch_N: NDArray[np.int64]
    """Equal for training losses over the same interval, and for validation losses after the same examples."""
    rows_N: Array
    """Rows that a training loss is the mean of; 1 for a validation loss."""
    is_final_N: Array
    """1 for the best loss of a full run with its decay, else 0."""
    log_start: float = 0.0
    """Log loss of the untouched model."""

    @classmethod
    def none(cls) -> Measurements:
        """Return measurements of nothing at all."""
        empty, index = np.zeros(0), np.zeros(0, dtype=np.int64)
        return cls(index, empty, empty, empty, index, empty, empty)


@dataclass(frozen=True)
class SettingLaw:
    """What is known of the log of the best loss in a full run of C settings: weighed samples of K."""

    weight_K: Array
    mean_KC: Array
    """Means given each sample of the parameters."""
    covariance_CC: Array
    """Covariance of the departures from these means, which is the same for all samples."""

    def draw(self, num: int, rng: np.random.Generator) -> Array:
        """Log losses in ``num`` draws, (num, C); each draw is of all settings together."""
        picked = rng.choice(len(self.weight_K), size=num, p=self.weight_K)
        root_CC = cholesky(self.covariance_CC + DRAW_JITTER * np.eye(len(self.covariance_CC)), lower=True)
        draws: Array = self.mean_KC[picked] + rng.normal(size=(num, len(root_CC))) @ root_CC.T
        return draws


@dataclass(frozen=True)
class Prior:
    """Means of the P parameters, and the lower Cholesky root of their covariance for width 1."""

    mean_P: Array
    root_PP: Array
    degrees: float
    """Degrees of freedom of the t distribution."""

    def place(self, phi_SP: Array, scale: float) -> Array:
        """Parameters that lie at ``phi_SP`` in standard deviations of the prior of a width."""
        value_SP: Array = self.mean_P + scale * phi_SP @ self.root_PP.T
        return value_SP

    def weigh_scales(self) -> Array:
        """Log probability of each of `SCALES`: the scale of a t distribution is an inverse root of a chi-squared."""
        edges = np.sqrt(np.array(SCALES[1:]) * np.array(SCALES[:-1]))
        above = chi2.cdf(self.degrees / np.concatenate([[1e-6], edges, [np.inf]]) ** 2, self.degrees)
        return np.log(np.maximum(above[:-1] - above[1:], np.finfo(float).tiny))


def make_prior(constants: Constants, features: Features) -> Prior:
    """The prior of the parameters of a model with these parts.

    The tables have one tower. Parameters of several are alike, and independent given those that all settings share.
    """
    names = list_parameters(features.parts)
    kinds, towers = [name_prior(each) for each in names], [each.partition(".")[2] for each in names]
    place = [constants["parameters"].index(kind) for kind in kinds]
    covariance_KK = np.array(constants["covariance"])
    common = [k for k, name in enumerate(constants["parameters"]) if not name.endswith(".tower")]
    across_KK = covariance_KK[:, common] @ np.linalg.solve(covariance_KK[np.ix_(common, common)], covariance_KK[common])
    apart_PP = np.array([[bool(a and b and a != b and LANGUAGE not in (a, b)) for b in towers] for a in towers])
    covariance_PP = np.where(apart_PP, across_KK[np.ix_(place, place)], covariance_KK[np.ix_(place, place)])
    mean_P = np.array([constants["mean"][k] for k in place])
    return Prior(mean_P, cholesky(covariance_PP, lower=True), constants["num_tasks"] - 1)


@dataclass(frozen=True)
class Mode:
    """The likeliest parameters at one width of the prior, in its standard deviations, and how they scatter."""

    phi_P: Array
    root_PP: Array
    """Lower Cholesky root of the inverse covariance of the parameters."""


class Study:
    """What is measured in one study, ready for the search for its parameters."""

    def __init__(self, features: Features, measured: Measurements, constants: Constants) -> None:
        """Prepare the covariances of ``measured``, and of the best losses that are asked for."""
        self.features, self.measured, self.prior = features, measured, make_prior(constants, features)
        num, size = len(measured.setting_N), len(features.log_rate_C)
        points = make_points(features, measured, constants)
        left = float(-measured.log_share_N.max(initial=-MOST_LEFT))
        departure_NN = compute_departures(constants, points) + compute_surprise(constants, points, left)
        noise_NN = compute_noise(constants, points)
        self.root_NN = cholesky((departure_NN + noise_NN)[:num, :num], lower=True)
        self.across_NC, self.own_CC = departure_NN[:num, num:], departure_NN[num:, num:]
        self.times = Times(measured.setting_N, measured.log_share_N, measured.is_final_N)
        self.asked = Times(np.arange(size), np.zeros(size), np.ones(size))

    def predict(self, value_SP: Array, times: Times) -> Array:
        """Log losses by the curve, (S, N)."""
        return compute_log_losses(value_SP, self.features, times, self.measured.log_start)

    def measure_errors(self, phi_SP: Array, scale: float) -> Array:
        """Measured minus predicted log losses, whitened: (S, N)."""
        error_SN = self.measured.log_loss_N - self.predict(self.prior.place(phi_SP, scale), self.times)
        return self._whiten(error_SN)

    def _whiten(self, error_SN: Array) -> Array:
        if not error_SN.shape[1]:
            return error_SN
        white: Array = solve_triangular(self.root_NN, error_SN.T, lower=True).T
        return white

    def find_mode(self, scale: float) -> Mode:
        """The parameters at which the posterior is highest, by Gauss-Newton steps with Levenberg's damping."""
        size = len(self.prior.mean_P)
        phi_P, damping, identity = np.zeros(size), 1e-2, np.eye(size)
        cost, error_N, slope_NP = self._linearise(phi_P, scale)
        for _ in range(NUM_STEPS):
            hessian_PP = slope_NP.T @ slope_NP + (1 + damping) * identity
            step_P = np.linalg.solve(hessian_PP, slope_NP.T @ error_N - phi_P)
            error_SN = self.measure_errors((phi_P + step_P)[None], scale)
            new_cost = float((error_SN**2).sum() + ((phi_P + step_P) ** 2).sum())
            if new_cost > cost:
                damping *= 8
                continue
            done, phi_P, damping = cost - new_cost < 1e-3, phi_P + step_P, damping / 4
            cost, error_N, slope_NP = self._linearise(phi_P, scale)
            if done:
                break
        return Mode(phi_P, cholesky(slope_NP.T @ slope_NP + identity, lower=True))

    def _linearise(self, phi_P: Array, scale: float) -> tuple[float, Array, Array]:
        """Twice the negative log posterior up to a constant, whitened errors (N,), slopes of the curve (N, P)."""
        nearby_SP = phi_P + np.concatenate([np.zeros((1, len(phi_P))), DIFFERENCE * np.eye(len(phi_P))])
        error_SN = self.measure_errors(nearby_SP, scale)
        slope_NP = (error_SN[0] - error_SN[1:]).T / DIFFERENCE
        return float((error_SN[0] ** 2).sum() + (phi_P**2).sum()), error_SN[0], slope_NP

    def sample(self, scale: float, rng: np.random.Generator) -> tuple[Array, Array]:
        """Samples of the parameters, (S, P), and their log weights: posterior over the density they are drawn from."""
        mode = self.find_mode(scale)
        white_SP = rng.normal(size=(NUM_SAMPLES, len(mode.phi_P)))
        phi_SP = mode.phi_P + SPREAD * solve_triangular(mode.root_PP.T, white_SP.T, lower=False).T
        log_posterior_S = -((self.measure_errors(phi_SP, scale) ** 2).sum(axis=1) + (phi_SP**2).sum(axis=1)) / 2
        log_drawn_S = -(white_SP**2).sum(axis=1) / 2 + np.log(np.diag(mode.root_PP)).sum()
        return self.prior.place(phi_SP, scale), log_posterior_S - log_drawn_S

    def condition(self, value_SP: Array) -> tuple[Array, Array]:
        """Means of all best log losses given the measurements and each vector of parameters; their covariance."""
        mean_SC = self.predict(value_SP, self.asked)
        if not len(self.measured.setting_N):
            return mean_SC, self.own_CC
        error_SN = self.measured.log_loss_N - self.predict(value_SP, self.times)
        gain_NC = cho_solve((self.root_NN, True), self.across_NC)
        return mean_SC + error_SN @ gain_NC, self.own_CC - self.across_NC.T @ gain_NC


def fit_setting_law(features: Features, measured: Measurements, constants: Constants | None = None) -> SettingLaw:
    """The posterior of the best losses of all settings in ``features``, given measurements of some of them."""
    study = Study(features, measured, load_constants() if constants is None else constants)
    rng = np.random.default_rng(0)
    samples = [
        (*study.sample(scale, rng), log_weight)
        for scale, log_weight in zip(SCALES, study.prior.weigh_scales(), strict=True)
    ]
    value_KP = np.concatenate([value_SP for value_SP, _, _ in samples])
    log_weight_K = np.concatenate([log_S + log_scale for _, log_S, log_scale in samples])
    mean_KC, covariance_CC = study.condition(value_KP)
    return SettingLaw(_truncate(log_weight_K), mean_KC, covariance_CC)


def _truncate(log_weight_K: Array) -> Array:
    """Weights that sum to 1, none above the mean times the root of their number (Ionides 2008, section 2)."""
    weight_K = np.exp(log_weight_K - log_weight_K.max())
    weight_K = np.minimum(weight_K, weight_K.mean() * len(weight_K) ** 0.5)
    weights: Array = weight_K / weight_K.sum()
    return weights


def make_points(features: Features, measured: Measurements, constants: Constants) -> Points:
    """The measured points, followed by the best loss of each setting."""
    size = len(features.log_rate_C)
    setting_P = np.concatenate([measured.setting_N, np.arange(size)])
    asked = np.zeros(size)
    is_train_P = np.concatenate([measured.is_train_N, asked])
    is_final_P = np.concatenate([measured.is_final_N, asked + 1])
    batch_P = np.concatenate([measured.batch_N, np.full(size, -1)])
    kind_P = is_train_P + 2 * is_final_P
    fallen = np.exp(measured.log_start - measured.log_loss_N.min(initial=measured.log_start))
    heat_C = compute_heat(make_prior(constants, features).mean_P[None], features)[0]
    return Points(
        place_ND=features.place_CD[setting_P],
        same_NN=(setting_P[:, None] == setting_P).astype(float),
        log_share_N=np.concatenate([measured.log_share_N, asked]),
        is_final_N=is_final_P,
        is_train_N=is_train_P,
        is_validation_N=1 - is_train_P - is_final_P,
        batch_NN=((batch_P[:, None] == batch_P) & (kind_P[:, None] == kind_P)).astype(float),
        rows_N=np.concatenate([measured.rows_N, asked + 1]),
        heat_N=fallen * heat_C[setting_P],
    )


@lru_cache(maxsize=8)
def load_constants(path: str = "") -> Constants:
    """The constants by name: those of the package, or of another file that the script wrote.

    Raises `ConfigError` for a file that holds none.
    """
    try:
        values: dict[str, Any] = json.loads((Path(path) if path else CONSTANTS_FILE).read_text())["constants"]
        if missing := {"parameters", "covariance", "reference_best"} - values.keys():
            raise KeyError(*sorted(missing))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"`constants` must be a file that benchmarks/fit_setting_law.py wrote, found {path} ({error!r})."
        ) from None
    return values
