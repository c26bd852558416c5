"""From draws of every candidate's final loss to probabilities, regrets, the plausible set and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PLAUSIBLE = 0.9
"""The share of the probability of being best that the plausible set holds."""
CLEAR = 0.9
"""A candidate is told from the best if it is worse with so much probability."""
SMALL_PRICE = 10
"""A coarse look ties everything: what cannot be told apart is still not given away for nothing."""
MOST = 0.75
"""Rank does not matter where so large a share of the candidates is tied."""


@dataclass(frozen=True)
class Choice:
    """What the draws say about C candidates (those not eligible have probability 0)."""

    p_best_C: Array
    regret_C: Array
    """Expected loss above the best eligible candidate of the same draw."""
    best: int
    """The eligible candidate with the least expected loss."""
    tied: tuple[int, ...]
    """The eligible candidates that cannot be told from the best, cheapest first."""
    chosen: int
    plausible: tuple[int, ...]
    """Those that hold 90 % of the probability of being best, most probable first, and the chosen one."""

    @property
    def distinguishable(self) -> bool:
        """The best stands alone."""
        return len(self.tied) == 1


def choose(
    loss_SC: Array, eligible_C: NDArray[np.bool_], cost_C: Sequence[int], resolution: float, indifference: float
) -> Choice:
    """The choice among eligible candidates, given draws of every candidate's loss.

    A candidate is tied with the best (least expected loss) unless it is worse with probability `CLEAR`, or by more than
    ``resolution`` nats in expectation. The chosen one is the cheapest of the tied that costs at most ``indifference``
    nats in expectation; where most candidates are tied, rank seems not to matter, and `SMALL_PRICE` times that.
    """
    masked_SC = np.where(eligible_C, loss_SC, np.inf)
    p_best_C = np.bincount(masked_SC.argmin(axis=1), minlength=loss_SC.shape[1]) / len(loss_SC)
    regret_C = (loss_SC - masked_SC.min(axis=1, keepdims=True)).mean(axis=0)
    best = int(np.where(eligible_C, regret_C, np.inf).argmin())
    p_worse_C = (loss_SC > loss_SC[:, [best]]).mean(axis=0)
    tied_C = eligible_C & (p_worse_C < CLEAR) & (regret_C - regret_C[best] <= max(resolution, indifference))
    tied_C[best] = True
    tied = sorted((int(c) for c in np.flatnonzero(tied_C)), key=lambda c: (cost_C[c], regret_C[c]))
    price = indifference * (SMALL_PRICE if len(tied) >= MOST * eligible_C.sum() else 1)
    chosen = next(c for c in tied if regret_C[c] - regret_C[best] <= price)
    plausible = _plausible(p_best_C)
    plausible += () if chosen in plausible else (chosen,)
    return Choice(p_best_C, regret_C, best, tuple(tied), chosen, plausible)


def _plausible(p_best_C: Array) -> tuple[int, ...]:
    order = np.argsort(-p_best_C, kind="stable")
    num = int(np.searchsorted(np.cumsum(p_best_C[order]), PLAUSIBLE - 1e-12)) + 1
    return tuple(int(c) for c in order[:num])
