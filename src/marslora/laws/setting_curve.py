"""The curve of a setting: how its loss falls with steps, learning rate and ranks. Equations (1) to (5) of the law.

See `marslora.laws.setting_law` for the equations. Functions take S vectors of parameters at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from marslora.core.arrays import Array
from marslora.laws.setting_features import LANGUAGE, Features

USUAL_STEPS, MOST_STEPS = 100.0, 300.0
"""Steps at which the log of time is 0, and the length of a full run up to which more steps count as more.

No table has longer runs. Beyond, time counts as a share of the run.
"""
SOFTNESS = 0.3
"""Width in log learning rate over which a limit sets in."""
TAILS = (-4.0, 3.0)
"""Least and largest log k: below, the curve does not change any more; above, it hardly falls at all."""
HOT = 2.5
"""Log hot at which the heights of both rises are given: that of ranks 64 at four times the usual learning rate."""
ABOVE_START = 0.3
"""Log loss above that of the untouched model which no setting exceeds."""
COMMON = (
    "centre", "gap", "sharpness", "tail", "onset", "rate_power", "time_power", "base", "limit", "excess", "heat_limit",
    "heat", "hot_power",
)  # fmt: skip
"""Parameters that all settings share."""
OF_LANGUAGE = ("rank_power", "untrained", "drag")
"""Parameters of the language model."""
OF_TOWER = ("share", "rank_power", "untrained", "drag", "hot_share")
"""Parameters of every other part: each tower has its own, with one prior for all towers."""


def list_parameters(parts: Sequence[str]) -> list[str]:
    """The names of the parameters of a model with these parts: ``NAME``, or ``NAME.PART``."""
    towers = [f"{name}.{part}" for part in parts if part != LANGUAGE for name in OF_TOWER]
    return [*COMMON, *(f"{name}.{LANGUAGE}" for name in OF_LANGUAGE), *towers]


def name_prior(parameter: str) -> str:
    """The name under which a parameter's prior is kept: that of a part is of its kind, ``language`` or ``tower``."""
    name, _, part = parameter.partition(".")
    return name if not part else parameter if part == LANGUAGE else f"{name}.tower"


@dataclass(frozen=True)
class Times:
    """When N losses are measured or asked for."""

    setting_N: np.ndarray
    """Index of the setting."""
    log_share_N: Array
    """Log of the examples seen as a share of a full run."""
    is_final_N: Array
    """1 for the best loss of a full run with its decay, else 0."""


def compute_log_losses(value_SP: Array, features: Features, times: Times, log_start: float) -> Array:
    """Log losses of S vectors of parameters at N points, (S, N).

    ``log_start`` is the log loss of the untouched model.
    """
    known = dict(zip(list_parameters(features.parts), value_SP.T[:, :, None], strict=True))
    progress_SC, floor_SC, hot_SC = _describe_settings(known, features)
    at = times.setting_N
    log_time_N = times.log_share_N + np.log(min(max(features.num_steps, 1.0), MOST_STEPS) / USUAL_STEPS)
    late_SN = progress_SC[:, at] + np.exp(known["time_power"]) * log_time_N - known["onset"]
    tail = np.exp(np.clip(known["tail"], *TAILS))
    left_SN = np.exp(-np.log1p(tail * np.exp(np.clip(np.exp(known["sharpness"]) * late_SN, -50, 50))) / tail)
    floor_SN = np.exp(np.minimum(log_start - known["gap"] + floor_SC[:, at], log_start))
    excess_SN = _exceed(hot_SC, known["limit"], known["excess"])[:, at]
    heat_SN = _exceed(hot_SC, known["heat_limit"], known["heat"])[:, at]
    final_N, start = times.is_final_N, np.exp(log_start)
    loss_SN = floor_SN + (start - floor_SN) * left_SN + (1 - final_N) * start * heat_SN
    losses: Array = np.minimum(np.log(loss_SN) + final_N * excess_SN, log_start + ABOVE_START)
    return losses


def compute_heat(value_SP: Array, features: Features) -> Array:
    """How much a constant learning rate raises the loss of each setting, in that of the untouched model: (S, C)."""
    known = dict(zip(list_parameters(features.parts), value_SP.T[:, :, None], strict=True))
    return _exceed(_describe_settings(known, features)[2], known["heat_limit"], known["heat"])


def _describe_settings(known: Mapping[str, Array], features: Features) -> tuple[Array, Array, Array]:
    """Log speed, log of the floor in the usual one, and how close the learning rate is to its limit: three (S, C)."""
    rate_SC = features.log_rate_C + known["centre"]
    power = np.exp(known["rate_power"])
    speed_SC, hot_SC, floor_SC = np.exp(known["base"]) + 0 * rate_SC, 1e-3 + 0 * rate_SC, 0 * rate_SC
    for m, part in enumerate(features.parts):
        trained_C, log_rank_C = features.trained_CM[:, m], features.log_rank_CM[:, m]
        factor_C = features.log_factor_CM[:, m]
        own = {name: known.get(f"{name}.{part}", np.zeros((1, 1))) for name in OF_TOWER}
        speed_SC = speed_SC + trained_C * np.exp(own["share"] + own["rank_power"] * log_rank_C + power * factor_C)
        hot_SC = hot_SC + trained_C * np.exp(own["hot_share"] + known["hot_power"] * log_rank_C + factor_C)
        floor_SC = floor_SC + own["untrained"] * (1 - trained_C) + own["drag"] * log_rank_C
    if LANGUAGE not in features.parts:
        speed_SC, hot_SC = speed_SC + 1.0, hot_SC + 1.0
    return power * rate_SC + np.log(speed_SC), floor_SC, rate_SC + np.log(hot_SC)


def _exceed(hot_SC: Array, limit: Array, log_height: Array) -> Array:
    """A rise that sets in softly at a limit, (S, C): its height is that at `HOT`."""
    rise: Array = np.exp(log_height) * _ramp(hot_SC - limit) / _ramp(HOT - limit)
    return rise


def _ramp(above: Array) -> Array:
    ramp: Array = SOFTNESS * np.logaddexp(0.0, above / SOFTNESS)
    return ramp
