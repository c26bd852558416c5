"""The law of settings: the best loss of a full run of every setting, given short runs of a few. `mars` decides by it.

For a setting c with features ``phi_c``, after a share ``exp(s)`` of a full run at a constant learning rate::

    (1)  log L(c, s)  = m(s) + a ( phi_c . w(s) + g(c, s) + own_c(s) )
    (2)  log L(c)     = log L(c, 0) + decay + a ( phi_c . w' + g'(c) + own'_c )        best loss of a full run
    (3)  training loss over an interval = L at its middle, times an error that all settings share; their rows are equal

``m`` is the curve that all settings have in common: a line in log time, an integrated random walk, and one step for the
decay of the learning rate. ``w(s)`` are the coefficients of the features: one Gaussian process in log time for each,
with a mean that moves. So an effect that short runs always flatter, such as that of a high learning rate, is expected
to fade, and the scatter of that over tasks is part of the uncertainty. ``g`` is a smooth function of the coordinates,
``own`` belongs to one setting. (2) adds what decay changes. The amplitude ``a`` says how much settings differ in this
study. It is integrated over `LOG_AMPLITUDES`, under a prior that is narrow around the usual amplitude but for a share
of studies that may have any. The likelihood of short runs counts there with a small power only: how much settings
differ early says little about how much they differ at the end, unless it is very little. Everything else is Gaussian,
so the posterior is exact.

Log losses are modelled because effects are then nearly proportional. The constants are in ``setting_law.json``: none is
set by hand. ``benchmarks/fit_setting_law.py`` learns them from tables of finished runs by the log score of the best
losses, given what searches measure, and leaves each task out once to say how well that predicts the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky

from marslora.core.arrays import Array
from marslora.core.errors import ConfigError
from marslora.laws.setting_features import Features
from marslora.laws.setting_kernel import (
    MOST_STEPS,
    USUAL_STEPS,
    Constants,
    Points,
    compute_common_covariance,
    compute_mean,
    compute_noise,
    compute_own_covariance,
)
from marslora.laws.setting_slopes import measure_slopes

LOG_AMPLITUDES = (-4.0, -3.2, -2.5, -1.9, -1.3, -0.9, -0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6, 0.9)
"""Logarithms of the values of a in equation (1), densest around the usual amplitude, 0."""
TAIL_MEAN, TAIL_SD = -1.5, 1.5
"""Studies that are not like the tables: in their logarithm of a, which is mostly smaller."""
CONSTANTS_FILE = Path(__file__).with_name("setting_law.json")
"""The learnt constants."""
DRAW_JITTER = 1e-9
"""Added to the variance of predictions, so that draws can be made of settings that are nearly the same."""


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

    @classmethod
    def none(cls) -> Measurements:
        """Return measurements of nothing at all."""
        empty, index = np.zeros(0), np.zeros(0, dtype=np.int64)
        return cls(index, empty, empty, empty, index, empty, empty)


@dataclass(frozen=True)
class SettingLaw:
    """What is known of the log of the best loss in a full run of C settings: a mixture over A amplitudes."""

    weight_A: Array
    """Posterior probabilities of the amplitudes."""
    mean_AC: Array
    covariance_ACC: Array

    def draw(self, num: int, rng: np.random.Generator) -> Array:
        """Log losses in ``num`` draws, (num, C); each draw is of all settings together."""
        counts = rng.multinomial(num, self.weight_A / self.weight_A.sum())
        size = self.mean_AC.shape[1]
        parts = []
        for mean_C, covariance_CC, count in zip(self.mean_AC, self.covariance_ACC, counts, strict=True):
            if count:
                root_CC = cholesky(covariance_CC + DRAW_JITTER * np.eye(size), lower=True)
                parts.append(mean_C + rng.normal(size=(count, size)) @ root_CC.T)
        return np.concatenate(parts)


def fit_setting_law(features: Features, measured: Measurements, constants: Constants | None = None) -> SettingLaw:
    """The posterior of the best losses of all settings in ``features``, given measurements of some of them."""
    known = load_constants() if constants is None else constants
    points, num = make_points(features, measured, known), len(measured.setting_N)
    common_N, own_N = compute_mean(known, features.group_F, points)
    common_NN, noise_NN = compute_common_covariance(known, points), compute_noise(known, points)
    own_NN = compute_own_covariance(known, features.group_F, points)
    early_E = np.flatnonzero(measured.is_final_N == 0)
    likelihoods, means, covariances = [], [], []
    for amplitude in np.exp(LOG_AMPLITUDES):
        mean_N, covariance_NN = common_N + amplitude * own_N, common_NN + amplitude**2 * own_NN + noise_NN
        likelihood, mean_C, covariance_CC = _condition(mean_N, covariance_NN, measured.log_loss_N, num)
        early = _measure_likelihood(
            mean_N[early_E], covariance_NN[np.ix_(early_E, early_E)], measured.log_loss_N[early_E]
        )
        likelihoods.append(likelihood - (1 - known["evidence_power"]) * early)
        means.append(mean_C)
        covariances.append(covariance_CC)
    log_weight_A = np.array(likelihoods) + np.log(weigh_amplitudes(known))
    weight_A = np.exp(log_weight_A - log_weight_A.max())
    return SettingLaw(weight_A / weight_A.sum(), np.array(means), np.array(covariances))


def weigh_amplitudes(constants: Constants) -> Any:
    """Prior probabilities of the amplitudes, (A,), up to a factor; they can be differentiated in the constants."""
    log_A, spacing_A = np.array(LOG_AMPLITUDES), np.gradient(LOG_AMPLITUDES)
    narrow, odds = constants["amplitude_sd"], constants["tail_odds"]
    tail_A = np.exp(-(((log_A - TAIL_MEAN) / TAIL_SD) ** 2) / 2) / TAIL_SD
    usual_A = [np.e ** (-((log / narrow) ** 2) / 2) / narrow for log in LOG_AMPLITUDES]
    return [space * (usual + odds * tail) for space, usual, tail in zip(spacing_A, usual_A, tail_A, strict=True)]


def _condition(mean_N: Array, covariance_NN: Array, value_N: Array, num: int) -> tuple[float, Array, Array]:
    """Log likelihood of the first ``num`` values; mean and covariance of the rest, given these."""
    if num == 0:
        return 0.0, mean_N, covariance_NN
    root = cholesky(covariance_NN[:num, :num], lower=True)
    error_N, across = value_N - mean_N[:num], covariance_NN[:num, num:]
    solved = cho_solve((root, True), np.column_stack([error_N, across]))
    likelihood = -float(error_N @ solved[:, 0]) / 2 - float(np.log(np.diag(root)).sum())
    return likelihood, mean_N[num:] + across.T @ solved[:, 0], covariance_NN[num:, num:] - across.T @ solved[:, 1:]


def _measure_likelihood(mean_E: Array, covariance_EE: Array, value_E: Array) -> float:
    """Log likelihood of the losses that were not measured at the end of a full run, up to a constant."""
    return _condition(mean_E, covariance_EE, value_E, len(value_E))[0]


def make_points(features: Features, measured: Measurements, constants: Constants) -> Points:
    """The measured points, followed by the best loss of each setting."""
    size = len(features.value_CF)
    slope_N, last_slope = measure_slopes(measured.setting_N, measured.log_share_N, measured.log_loss_N)
    setting_P = np.concatenate([measured.setting_N, np.arange(size)])
    asked = np.zeros(size)
    is_train_P = np.concatenate([measured.is_train_N, asked])
    is_final_P = np.concatenate([measured.is_final_N, asked + 1])
    batch_P = np.concatenate([measured.batch_N, np.full(size, -1)])
    kind_P = is_train_P + 2 * is_final_P
    length_D = np.array([constants[f"length.{scale}"] for scale in features.scale_D])
    return Points(
        value_NF=features.value_CF[setting_P],
        place_ND=features.place_CD[setting_P] / length_D,
        same_NN=(setting_P[:, None] == setting_P).astype(float),
        log_share_N=np.concatenate([measured.log_share_N, asked]),
        is_final_N=is_final_P,
        is_train_N=is_train_P,
        is_validation_N=1 - is_train_P - is_final_P,
        batch_NN=((batch_P[:, None] == batch_P) & (kind_P[:, None] == kind_P)).astype(float),
        rows_N=np.concatenate([measured.rows_N, asked + 1]),
        slope_N=np.concatenate([slope_N, asked + last_slope]),
        log_steps=float(np.log(min(max(features.num_steps, 1.0), MOST_STEPS) / USUAL_STEPS)),
    )


@lru_cache(maxsize=8)
def load_constants(path: str = "") -> Mapping[str, Any]:
    """The constants by name: those of the package, or of another file that the script wrote.

    Raises `ConfigError` for a file that holds none.
    """
    try:
        values: Mapping[str, Any] = json.loads((Path(path) if path else CONSTANTS_FILE).read_text())["constants"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"`constants` must be a file that benchmarks/fit_setting_law.py wrote, found {path} ({error!r})."
        ) from None
    return values
