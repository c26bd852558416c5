"""Which allocations let all parts converge together: the mismatch of predicted times, the closed form beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marslora.core.allocation import Allocation, Space
from marslora.core.decision import ClosedForm, Interval, LawFit
from marslora.laws import convergence, interval

Array = NDArray[np.float64]
NUM_DRAWS = 400


@dataclass(frozen=True)
class Balance:
    """Predicted convergence of C candidates; M parts have a law."""

    parts: tuple[str, ...]
    time_CM: Array
    """Examples until each part has converged; NaN where the allocation leaves it alone."""
    time_SCM: Array
    """The same in S bootstrap draws of the laws."""

    @property
    def mismatch_C(self) -> Array:
        """Largest log ratio of two parts' times; 0 where fewer than two parts are trained."""
        return _spread(self.time_CM)

    @property
    def mismatch_SC(self) -> Array:
        """The same in each draw."""
        return _spread(self.time_SCM)

    def times(self, c: int) -> dict[str, Interval]:
        """Predicted examples until convergence of each part of candidate ``c``."""
        return {
            part: interval(float(self.time_CM[c, m]), self.time_SCM[:, c, m])
            for m, part in enumerate(self.parts)
            if np.isfinite(self.time_CM[c, m])
        }

    def mismatch(self, c: int) -> Interval:
        """The mismatch of candidate ``c`` with its interval."""
        return interval(float(self.mismatch_C[c]), self.mismatch_SC[:, c])

    def balanced(self, tolerance: float, level: float = 0.9) -> NDArray[np.bool_]:
        """Candidates whose mismatch cannot be said to exceed the least one by more than ``tolerance`` (a log ratio)."""
        excess_SC = self.mismatch_SC - self.mismatch_SC[:, [int(self.mismatch_C.argmin())]]
        return np.asarray(np.quantile(excess_SC, (1 - level) / 2, axis=0) <= tolerance, dtype=bool)

    def words(self, c: int) -> str:
        """E.g. ``vision would converge 3.1x later than language (90 % interval 2.0-4.8)``."""
        trained = np.flatnonzero(np.isfinite(self.time_CM[c]))
        if len(trained) < 2:
            return "fewer than two parts with a convergence law are trained, so nothing can be out of balance"
        slow = trained[int(np.argmax(self.time_CM[c, trained]))]
        fast = trained[int(np.argmin(self.time_CM[c, trained]))]
        ratio_S = self.time_SCM[:, c, slow] / self.time_SCM[:, c, fast]
        found = interval(float(self.time_CM[c, slow] / self.time_CM[c, fast]), ratio_S)
        return (
            f"{self.parts[slow]} would converge {found.value:.3g}x later than {self.parts[fast]} "
            f"(90 % interval {found.low:.2g}-{found.high:.2g})"
        )


def balance(candidates: Sequence[Allocation], laws: Mapping[str, LawFit], data: float, seed: int) -> Balance:
    """The predicted convergence times of the candidates on ``data`` rows, by the laws of the parts."""
    rng = np.random.default_rng(seed)
    law, parts = convergence.ConvergenceLaw(), tuple(laws)
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
    return Balance(parts, value_CM, draw_SCM)


def closed_forms(space: Space, laws: Mapping[str, LawFit], data: float) -> tuple[ClosedForm, ...]:
    """For each ordered pair of parts and each rank of the second, the rank that balances the first."""
    return tuple(
        _closed_form(space, part, given, rank, laws[part], laws[given], data)
        for part in laws
        for given in laws
        if part != given
        for rank in space.ladder(given)
        if rank > 0
    )


def _closed_form(
    space: Space, part: str, given: str, given_rank: int, law: LawFit, other: LawFit, data: float
) -> ClosedForm:
    def found(rank: float | None, status: str, message: str) -> ClosedForm:
        return ClosedForm.model_validate(
            {"part": part, "given": given, "given_rank": given_rank, "rank": rank, "status": status, "message": message}
        )

    if law.status == "failed" or other.status == "failed":
        return found(None, "law_failed", f"no law for {part if law.status == 'failed' else given}")
    value = {name: item.value for name, item in law.parameters.items()}
    alpha, floor = value.get("alpha", 0.0), value.get("E", 0.0)
    target = convergence.predict(other, given_rank, data)
    if abs(alpha) < 1e-6:
        return found(None, "no_real_solution", f"rank does not move the convergence of {part}")
    if target <= floor:
        return found(
            None,
            "no_real_solution",
            f"{given} converges after {target:.4g} examples, {part} at no rank before {floor:.4g}",
        )
    scale = value["A"] * (data / law.references["data"]) ** value["beta"] if "beta" in value else value["A"]
    log_rank = np.log(law.references["rank"]) - np.log((target - floor) / scale) / alpha
    rank = float(np.exp(np.clip(log_rank, -50.0, 50.0)))
    ladder = [rung for rung in space.ladder(part) if rung > 0]
    if not ladder[0] / 2 <= rank <= ladder[-1] * 2:
        return found(rank, "outside_ladder", f"{rank:.3g} lies outside the ladder {ladder[0]}-{ladder[-1]}")
    return found(rank, "solved", "")


def _spread(time: Array) -> Array:
    """Log ratio of the largest to the smallest along the last axis, NaN left out."""
    known = np.isfinite(time)
    high = np.where(known, np.log(np.where(known, time, 1.0)), -np.inf).max(axis=-1, initial=-np.inf)
    low = np.where(known, np.log(np.where(known, time, 1.0)), np.inf).min(axis=-1, initial=np.inf)
    enough = known.sum(axis=-1) > 1
    return np.where(enough, np.where(enough, high, 0.0) - np.where(enough, low, 0.0), 0.0)
