"""From draws of every candidate's final loss to probabilities, regrets, the plausible set and the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marslora.core.arrays import Array
from marslora.core.decision import LEVEL

CLEARLY_WORSE = 0.9
"""A candidate differs clearly from the best if it is worse with this probability. A convention, like `LEVEL`."""
TIED_PRICE = 10
"""Where most candidates are tied, the cheapest may cost this many times the indifference in expectation, but not more.

Without a bound a short calibration took candidates 0.15 nats above the best (dev/LOG.md, 2026-11-22).
"""
MOST = 0.75
"""Rank seems not to matter if at least this share of the candidates is tied. A convention."""


@dataclass(frozen=True)
class Choice:
    """What the draws say about C candidates. Those that are not eligible have probability 0."""

    p_best_C: Array
    """Share of the draws in which each is best."""
    regret_C: Array
    """Expected loss above the best eligible candidate of the same draw, in nats."""
    best: int
    """The eligible candidate with the least expected loss."""
    tied: tuple[int, ...]
    """The eligible candidates that do not differ clearly from the best, cheapest first."""
    chosen: int
    plausible: tuple[int, ...]
    """Those that hold 90 % of the probability of being best, most probable first, and the chosen one."""

    @property
    def is_clear(self) -> bool:
        """Whether every other candidate differs clearly from the best."""
        return len(self.tied) == 1


def choose_candidate(
    loss_SC: Array,
    eligible_C: NDArray[np.bool_],
    cost_C: Sequence[int],
    indifference: float,
    resolution: float | None = None,
) -> Choice:
    """The choice among eligible candidates, given S draws of every candidate's loss.

    A candidate is tied with the best (least expected loss) unless it is worse with probability `CLEARLY_WORSE`, or by
    more than ``resolution`` nats in expectation (None: however much). The chosen one is the cheapest of the tied that
    costs at most ``indifference`` nats in expectation, or `TIED_PRICE` times that if most candidates are tied.
    """
    masked_SC = np.where(eligible_C, loss_SC, np.inf)
    p_best_C = np.bincount(masked_SC.argmin(axis=1), minlength=loss_SC.shape[1]) / len(loss_SC)
    regret_C = (loss_SC - masked_SC.min(axis=1, keepdims=True)).mean(axis=0)
    best = int(np.where(eligible_C, regret_C, np.inf).argmin())
    p_worse_C = (loss_SC > loss_SC[:, [best]]).mean(axis=0)
    tied_C = eligible_C & (p_worse_C < CLEARLY_WORSE)
    if resolution is not None:
        tied_C &= regret_C - regret_C[best] <= max(resolution, indifference)
    tied_C[best] = True
    tied = sorted((int(c) for c in np.flatnonzero(tied_C)), key=lambda c: (cost_C[c], regret_C[c]))
    price = indifference * (TIED_PRICE if len(tied) >= MOST * eligible_C.sum() else 1)
    chosen = next(c for c in tied if regret_C[c] - regret_C[best] <= price)
    plausible = _select_plausible(p_best_C)
    plausible += () if chosen in plausible else (chosen,)
    return Choice(p_best_C, regret_C, best, tuple(tied), chosen, plausible)


def _select_plausible(p_best_C: Array) -> tuple[int, ...]:
    """The fewest candidates that hold `LEVEL` of the probability of being best."""
    order = np.argsort(-p_best_C, kind="stable")
    num = int(np.searchsorted(np.cumsum(p_best_C[order]), LEVEL - 1e-12)) + 1
    return tuple(int(c) for c in order[:num])
