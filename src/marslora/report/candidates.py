"""What the candidates of a decision say together: the best setting of an allocation, whether a tower should be
trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from marslora.core.allocation import Allocation
from marslora.core.decision import Candidate
from marslora.core.parts import TOWERS
from marslora.report.data import ReportData
from marslora.report.numbers import format_setting

K = TypeVar("K", bound=Hashable)


def find_expected_loss(candidate: Candidate) -> float | None:
    """The predicted loss of a full run, or the observed one where nothing was predicted."""
    if candidate.predicted_loss is not None and math.isfinite(candidate.predicted_loss.value):
        return candidate.predicted_loss.value
    return candidate.observed_loss


def select_best(candidates: Iterable[Candidate], key: Callable[[Candidate], K]) -> dict[K, Candidate]:
    """Of the candidates with the same key the chosen one, else the one with the lowest expected loss."""
    best: dict[K, Candidate] = {}
    for candidate in candidates:
        known = best.get(key(candidate))
        if known is None or _order(candidate) < _order(known):
            best[key(candidate)] = candidate
    return best


def _order(candidate: Candidate) -> tuple[bool, float]:
    return candidate.status != "chosen", _loss_or_infinity(candidate)


def _loss_or_infinity(candidate: Candidate) -> float:
    expected = find_expected_loss(candidate)
    return math.inf if expected is None else expected


def select_best_settings(data: ReportData) -> dict[Allocation, Candidate]:
    """Every allocation at its best learning rate."""
    return select_best(data.decision.candidates, lambda candidate: candidate.allocation)


def list_rates(data: ReportData) -> list[float]:
    """The learning rates among the candidates, increasing; empty if the learning rate was not searched."""
    rates = {each.learning_rate for each in data.decision.candidates if each.learning_rate is not None}
    return sorted(rates)


def find_most_important_part(data: ReportData) -> str:
    """The searched part whose rank moves the expected loss most, each rank at the best of all else."""

    def measure(part: str) -> float:
        best = select_best(data.decision.candidates, lambda candidate: candidate.allocation.get(part))
        losses = [value for candidate in best.values() if (value := find_expected_loss(candidate)) is not None]
        return max(losses, default=0.0) - min(losses, default=0.0)

    return max(data.searched, key=measure)


def list_optional_towers(data: ReportData) -> list[str]:
    """The towers that the search could have left as they are."""
    ladders = dict(data.space.ladders)
    return [part for part in data.searched if part in TOWERS and ladders[part][0] == 0 and len(ladders[part]) > 1]


def find_training_probability(data: ReportData, part: str) -> float | None:
    """The probability that the best setting trains ``part``; None if no probability is known."""
    known = [candidate for candidate in data.decision.candidates if candidate.p_best is not None]
    return sum(candidate.p_best or 0.0 for candidate in known if candidate.allocation.get(part)) if known else None


def name_candidate(candidate: Candidate, data: ReportData) -> str:
    """``vision 16, language 64, learning rate 0.0016``: the searched parts, and the rates if they were searched."""
    return format_setting(candidate.setting, data.searched)


def sort_by_loss(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates by expected loss, lowest first; those without one come last."""
    return sorted(candidates, key=_loss_or_infinity)
