"""When each part of each candidate would converge, how far the parts are apart, and the balanced rank in closed form.

MARS (arXiv 2603.00720) holds that an allocation is best when all parts converge together. The *imbalance* of an
allocation is the largest log ratio of two parts' convergence times, as Law-C predicts them; 0 is balanced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marslora.core.allocation import Allocation, Space
from marslora.core.arrays import Array
from marslora.core.decision import LEVEL, ClosedForm, Interval, LawFit
from marslora.laws import ConvergenceLaw, measure_interval

NUM_DRAWS = 400
"""Draws of each part's law: twice its 200 bootstrap fits, so that the pairing of two parts' fits adds little chance."""
MIN_EXPONENT = 1e-6
"""An exponent nearer to 0 than this cannot be solved for a rank."""
LADDER_MARGIN = 2
"""A balanced rank up to this factor beyond the ladder is still reported as a solution: the next rung would be there."""
MAX_LOG_RANK = 50.0
"""Bound of the logarithm of a solution, so that it does not overflow."""


@dataclass(frozen=True)
class PredictedTimes:
    """Predicted convergence of C candidates; M parts have a law."""

    parts: tuple[str, ...]
    time_CM: Array
    """Examples until each part has converged; NaN if the allocation does not train it."""
    time_SCM: Array
    """The same in S bootstrap draws of the laws."""

    @property
    def imbalance_C(self) -> Array:
        """Largest log ratio of two parts' times; 0 if fewer than two parts are trained."""
        return _measure_log_ratio(self.time_CM)

    @property
    def imbalance_SC(self) -> Array:
        """The same in each draw."""
        return _measure_log_ratio(self.time_SCM)

    def times_of(self, c: int) -> dict[str, Interval]:
        """Predicted examples until convergence of each part of candidate ``c``."""
        return {
            part: measure_interval(float(self.time_CM[c, m]), self.time_SCM[:, c, m])
            for m, part in enumerate(self.parts)
            if np.isfinite(self.time_CM[c, m])
        }

    def imbalance_of(self, c: int) -> Interval:
        """The imbalance of candidate ``c`` with its interval."""
        return measure_interval(float(self.imbalance_C[c]), self.imbalance_SC[:, c])

    def select_balanced(self, tolerance: float) -> NDArray[np.bool_]:
        """The candidates that count as balanced, (C,).

        These are all whose imbalance does not exceed the least one by more than ``tolerance`` (a log ratio), at the
        lower end of a 90 % interval.
        """
        excess_SC = self.imbalance_SC - self.imbalance_SC[:, [int(self.imbalance_C.argmin())]]
        return np.asarray(np.quantile(excess_SC, (1 - LEVEL) / 2, axis=0) <= tolerance, dtype=bool)

    def describe_imbalance(self, c: int) -> str:
        """E.g. ``vision would converge 3.1x later than language (90 % interval 2.0-4.8)``."""
        trained = np.flatnonzero(np.isfinite(self.time_CM[c]))
        if len(trained) < 2:
            return "fewer than two parts with a convergence law are trained, so nothing can be out of balance"
        slow = trained[int(np.argmax(self.time_CM[c, trained]))]
        fast = trained[int(np.argmin(self.time_CM[c, trained]))]
        ratio_S = self.time_SCM[:, c, slow] / self.time_SCM[:, c, fast]
        ratio = measure_interval(float(self.time_CM[c, slow] / self.time_CM[c, fast]), ratio_S)
        return (
            f"{self.parts[slow]} would converge {ratio.value:.3g}x later than {self.parts[fast]} "
            f"(90 % interval {ratio.low:.2g}-{ratio.high:.2g})"
        )


def predict_times(
    candidates: Sequence[Allocation], laws: Mapping[str, LawFit], data: float, seed: int
) -> PredictedTimes:
    """The predicted convergence times of the candidates on ``data`` rows, by Law-C of each part."""
    rng = np.random.default_rng(seed)
    law, parts = ConvergenceLaw(), tuple(laws)
    value_CM = np.full((len(candidates), len(parts)), np.nan)
    draw_SCM = np.full((NUM_DRAWS, len(candidates), len(parts)), np.nan)
    for m, part in enumerate(parts):
        rank_C = np.array([float(allocation[part]) for allocation in candidates])
        inputs = {"rank": rank_C, "data": np.full(len(candidates), data)}
        trained_C = rank_C > 0
        drawn_DC = law.predict_draws(laws[part], inputs)
        picked = rng.integers(len(drawn_DC), size=NUM_DRAWS)
        value_CM[trained_C, m] = law.predict_many(laws[part], inputs)[trained_C]
        draw_SCM[:, trained_C, m] = drawn_DC[picked][:, trained_C]
    return PredictedTimes(parts, value_CM, draw_SCM)


def solve_closed_forms(space: Space, laws: Mapping[str, LawFit], data: float) -> tuple[ClosedForm, ...]:
    """For each ordered pair of parts and each rank of the second, the rank that balances the first.

    ``r_a = [(T_b(r_b, D) - E_a) / (A_a D^beta_a)]^(-1 / alpha_a)`` (MARS, arXiv 2603.00720).
    """
    return tuple(
        _solve_closed_form(space, part, given, rank, laws[part], laws[given], data)
        for part in laws
        for given in laws
        if part != given
        for rank in space.ladder(given)
        if rank > 0
    )


def _solve_closed_form(
    space: Space, part: str, given: str, given_rank: int, law: LawFit, other: LawFit, data: float
) -> ClosedForm:
    def report(rank: float | None, status: str, message: str) -> ClosedForm:
        return ClosedForm.model_validate(
            {"part": part, "given": given, "given_rank": given_rank, "rank": rank, "status": status, "message": message}
        )

    if law.status == "failed" or other.status == "failed":
        return report(None, "law_failed", f"no law for {part if law.status == 'failed' else given}")
    value = {name: item.value for name, item in law.parameters.items()}
    alpha, floor = value.get("alpha", 0.0), value.get("E", 0.0)
    target = ConvergenceLaw().predict(other, {"rank": given_rank, "data": data})
    if abs(alpha) < MIN_EXPONENT:
        return report(None, "no_real_solution", f"rank does not change when {part} converges")
    if target <= floor:
        return report(
            None,
            "no_real_solution",
            f"{given} converges after {target:.4g} examples, {part} at no rank before {floor:.4g}",
        )
    scale = value["A"] * (data / law.references["data"]) ** value["beta"] if "beta" in value else value["A"]
    log_rank = np.log(law.references["rank"]) - np.log((target - floor) / scale) / alpha
    rank = float(np.exp(np.clip(log_rank, -MAX_LOG_RANK, MAX_LOG_RANK)))
    ladder = [rung for rung in space.ladder(part) if rung > 0]
    if not ladder[0] / LADDER_MARGIN <= rank <= ladder[-1] * LADDER_MARGIN:
        return report(rank, "outside_ladder", f"{rank:.3g} lies outside the ladder {ladder[0]}-{ladder[-1]}")
    return report(rank, "solved", "")


def _measure_log_ratio(time: Array) -> Array:
    """Log ratio of the largest to the smallest along the last axis, NaN left out."""
    known = np.isfinite(time)
    high = np.where(known, np.log(np.where(known, time, 1.0)), -np.inf).max(axis=-1, initial=-np.inf)
    low = np.where(known, np.log(np.where(known, time, 1.0)), np.inf).min(axis=-1, initial=np.inf)
    enough = known.sum(axis=-1) > 1
    return np.where(enough, np.where(enough, high, 0.0) - np.where(enough, low, 0.0), 0.0)
