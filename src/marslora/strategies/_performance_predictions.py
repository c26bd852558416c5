"""What Law-P predicts of every candidate in a full run, and what the candidate's own run says beyond the law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from marslora.core.allocation import Allocation
from marslora.core.arrays import Array
from marslora.core.decision import LawFit
from marslora.laws import PerformanceLaw
from marslora.laws.performance_forms import RESERVED
from marslora.strategies._predictions import OWN_SHARE, Predictions

NUM_DRAWS = 1000
"""Draws of the law. A probability has a standard error of at most 0.016; only 200 bootstrap fits are behind it."""
NO_EXPONENTS = ("E", "A", "b", "K", "tau")
"""Parameters of Law-P that do not describe how allocations differ."""


def predict_by_performance_law(
    law: LawFit, candidates: Sequence[Allocation], inputs: Sequence[Mapping[str, float]], seed: int
) -> Predictions | None:
    """The predictions of a fitted Law-P at the candidates' inputs; None if they are not finite.

    Each draw is a bootstrap fit of the law, times each candidate's own departure from it, times one common error of
    looking beyond the longest run.
    """
    rng = np.random.default_rng(seed)
    performance_law = PerformanceLaw()
    arrays = {name: np.array([item[name] for item in inputs]) for name in inputs[0]}
    value_C = performance_law.predict_many(law, arrays)
    drawn_DC = performance_law.predict_draws(law, arrays)
    drawn_DC = drawn_DC[np.isfinite(drawn_DC).all(axis=1)]
    if not np.isfinite(value_C).all() or not len(drawn_DC):
        return None
    departures, departure_sd = _measure_departures(law)
    shift_C = np.array([OWN_SHARE * departures.get(_make_key(allocation), 0.0) for allocation in candidates])
    own_SC = rng.normal(size=(NUM_DRAWS, len(candidates))) * departure_sd * np.sqrt(OWN_SHARE)
    picked = rng.integers(len(drawn_DC), size=NUM_DRAWS)
    common_S = rng.normal(size=(NUM_DRAWS, 1)) * _estimate_ahead_sd(law, arrays["data"])
    return Predictions(
        loss_C=value_C * np.exp(shift_C),
        loss_SC=drawn_DC[picked] * np.exp(shift_C + own_SC + common_S),
        resolution=float(departure_sd * value_C.min()),
    )


def _estimate_ahead_sd(law: LawFit, data_C: Array) -> float:
    """Standard deviation of the log error that all candidates share because the law looks beyond the longest run."""
    furthest = max(point.inputs["data"] for point in law.points)
    rate = law.ahead_error if np.isfinite(law.ahead_error) else 0.0
    return rate * max(float(np.log(data_C.max() / furthest)), 0.0)


def _measure_departures(law: LawFit) -> tuple[dict[tuple[tuple[str, float], ...], float], float]:
    """Mean log departure of each allocation's later half from the law, and the standard deviation of these."""
    pairs: dict[tuple[tuple[str, float], ...], list[tuple[float, float]]] = {}
    for point in law.points:
        key = tuple((name, value) for name, value in point.inputs.items() if name not in RESERVED)
        pairs.setdefault(key, []).append((point.inputs["data"], np.log(point.measured / point.predicted)))
    means = {key: _average_later_half(own) for key, own in pairs.items()}
    exponents = sum(name not in NO_EXPONENTS for name in law.parameters)
    freedom = max(len(means) - 1 - exponents, 1)
    centre = float(np.mean(list(means.values())))
    return means, float(np.sqrt(sum((value - centre) ** 2 for value in means.values()) / freedom))


def _average_later_half(pairs: list[tuple[float, float]]) -> float:
    ordered = [value for _, value in sorted(pairs)]
    return float(np.mean(ordered[len(ordered) // 2 :]))


def _make_key(allocation: Allocation) -> tuple[tuple[str, float], ...]:
    return tuple((part, float(rank)) for part, rank in allocation.ranks)
