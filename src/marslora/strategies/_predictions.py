"""What each candidate would reach in a full run: draws of Law-P plus what its own run says beyond the law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marslora.core.allocation import Allocation
from marslora.core.decision import LawFit
from marslora.laws import performance

Array = NDArray[np.float64]
NUM_DRAWS = 1000
REAL_SHARE = 0.5
"""How much of a run's departure from the law is taken for the allocation's own rather than the luck of its seed.

With one seed the two cannot be told apart, so they are given equal parts.
"""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted losses of C candidates in a full run, whose best point is kept."""

    loss_C: Array
    loss_SC: Array
    """The same in S draws: refitted laws, each candidate's own departure from its law, the error of looking ahead."""
    noise: float
    """Typical departure of a run from the law, in nats: the resolution of one run."""


def outlook(
    law: LawFit, candidates: Sequence[Allocation], inputs: Sequence[Mapping[str, float]], seed: int
) -> Predictions | None:
    """The predictions of a fitted law at the candidates' inputs; None where they are not finite."""
    rng = np.random.default_rng(seed)
    kind = performance.PerformanceLaw()
    arrays = {name: np.array([item[name] for item in inputs]) for name in inputs[0]}
    value_C = kind.predict_many(law, arrays)
    drawn_DC = kind.predict_draws(law, arrays)
    drawn_DC = drawn_DC[np.isfinite(drawn_DC).all(axis=1)]
    if not np.isfinite(value_C).all() or not len(drawn_DC):
        return None
    offset, spread = _departures(law)
    shift_C = np.array([REAL_SHARE * offset.get(_ranks(allocation), 0.0) for allocation in candidates])
    own_SC = rng.normal(size=(NUM_DRAWS, len(candidates))) * spread * np.sqrt(REAL_SHARE)
    picked = rng.integers(len(drawn_DC), size=NUM_DRAWS)
    common_S = rng.normal(size=(NUM_DRAWS, 1)) * _bridged(law, arrays["data"])
    return Predictions(
        loss_C=value_C * np.exp(shift_C),
        loss_SC=drawn_DC[picked] * np.exp(shift_C + own_SC + common_S),
        noise=float(spread * value_C.min()),
    )


def _bridged(law: LawFit, data_C: Array) -> float:
    """Standard deviation of the log error that all candidates share because the law looks ahead of what was seen."""
    furthest = max(point.inputs["data"] for point in law.points)
    rate = law.ahead_error if np.isfinite(law.ahead_error) else 0.0
    return rate * max(float(np.log(data_C.max() / furthest)), 0.0)


def _departures(law: LawFit) -> tuple[dict[tuple[tuple[str, float], ...], float], float]:
    """Mean log departure of each allocation's later half from the law, and the standard deviation of these."""
    found: dict[tuple[tuple[str, float], ...], list[tuple[float, float]]] = {}
    for point in law.points:
        key = tuple((name, value) for name, value in point.inputs.items() if name not in performance.RESERVED)
        found.setdefault(key, []).append((point.inputs["data"], np.log(point.measured / point.predicted)))
    means = {key: _later_half(pairs) for key, pairs in found.items()}
    exponents = sum(name not in ("E", "A", "b", "K", "tau") for name in law.parameters)
    freedom = max(len(means) - 1 - exponents, 1)
    centre = float(np.mean(list(means.values())))
    spread = float(np.sqrt(sum((value - centre) ** 2 for value in means.values()) / freedom))
    return means, spread


def _later_half(pairs: list[tuple[float, float]]) -> float:
    ordered = [value for _, value in sorted(pairs)]
    return float(np.mean(ordered[len(ordered) // 2 :]))


def _ranks(allocation: Allocation) -> tuple[tuple[str, float], ...]:
    return tuple((part, float(rank)) for part, rank in allocation.ranks)
