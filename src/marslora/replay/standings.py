"""Regret at equal cost, paired differences with intervals, and whether probabilities mean what they say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marslora.core.decision import Interval
from marslora.core.seeds import derive
from marslora.replay.contest import Score

Array = NDArray[np.float64]
NUM_BOOTSTRAPS = 2000
LEVEL = 0.9


@dataclass(frozen=True)
class FamilyCurve:
    """Regret of a family over what it spends: S settings, cheapest first, on W worlds."""

    family: str
    settings: tuple[str, ...]
    cost_S: Array
    """Mean run equivalents of each setting."""
    regret_SW: Array

    def regret_at(self, cost: float) -> Array | None:
        """Regret on each world at a cost, between two settings by a line; None below the cheapest setting's cost.

        A setting is never worse than the best cheaper one: nobody has to spend what they may.
        """
        if cost < self.cost_S[0] - 0.005:
            return None
        order = np.minimum(np.searchsorted(self.cost_S, cost), len(self.cost_S) - 1)
        low = max(order - 1, 0)
        width = self.cost_S[order] - self.cost_S[low]
        share = float(np.clip((cost - self.cost_S[low]) / width, 0, 1)) if width > 0 else 1.0
        mixed: Array = (1 - share) * self.regret_SW[low] + share * self.regret_SW[order]
        cheaper = int(self.regret_SW[: low + 1].mean(axis=1).argmin())
        return self.regret_SW[cheaper] if self.regret_SW[cheaper].mean() < mixed.mean() else mixed


def curves(scores: Sequence[Score]) -> dict[str, FamilyCurve]:
    """The curve of every family, its worlds in one common order."""
    order = {world: index for index, world in enumerate(dict.fromkeys(score.world for score in scores))}
    by_family: dict[str, dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        by_family[score.family][score.setting].append(score)
    found = {}
    for family, settings in by_family.items():
        ranked = sorted(settings.items(), key=lambda item: np.mean([score.cost for score in item[1]]))
        regret_SW = np.array([[s.regret for s in sorted(of, key=lambda s: order[s.world])] for _, of in ranked])
        cost_S = np.array([np.mean([score.cost for score in of]) for _, of in ranked])
        found[family] = FamilyCurve(family, tuple(name for name, _ in ranked), cost_S, regret_SW)
    return found


def clusters(scores: Sequence[Score]) -> list[tuple[str, int]]:
    """Of each world, in the order of `curves`: what is resampled together (limits on one table and seed share runs)."""
    return [(table, seed) for table, seed, _ in dict.fromkeys(score.world for score in scores)]


def mean_interval(value_W: Array, cluster_W: Sequence[object]) -> Interval:
    """A statistic over worlds with its bootstrap interval, clusters resampled whole."""
    groups = defaultdict(list)
    for index, cluster in enumerate(cluster_W):
        groups[cluster].append(index)
    members = [np.array(indices) for indices in groups.values()]
    rng = np.random.default_rng(derive(0, "standings"))
    drawn = [
        value_W[np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])].mean()
        for _ in range(NUM_BOOTSTRAPS)
    ]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(value=float(value_W.mean()), low=float(low), high=float(high), level=LEVEL)


@dataclass(frozen=True)
class Standing:
    """A family at one cost."""

    family: str
    cost: float
    regret: Interval
    difference: Interval | None
    """Its regret minus the reference's on the same worlds; None for the reference itself."""


def standings(scores: Sequence[Score], cost: float, reference: str) -> list[Standing]:
    """Every family that can be had at a cost, least regret first, each compared with the reference family."""
    found, cluster_W = curves(scores), clusters(scores)
    against = found[reference].regret_at(cost) if reference in found else None
    rows = []
    for family, curve in found.items():
        regret_W = curve.regret_at(cost)
        if regret_W is None:
            continue
        compared = family != reference and against is not None
        difference = mean_interval(regret_W - against, cluster_W) if compared and against is not None else None
        rows.append(Standing(family, cost, mean_interval(regret_W, cluster_W), difference))
    return sorted(rows, key=lambda row: row.regret.value)


@dataclass(frozen=True)
class Reliability:
    """What a family says of itself against what is so."""

    family: str
    num: int
    coverage: float
    """Share of worlds whose best candidate lies in the reported 90 % set."""
    mean_plausible: float
    """Mean size of that set."""
    bins: tuple[tuple[float, float, int], ...]
    """(mean P(best) reported, share in which the choice was best or tied with it, number) by fifths of P."""


def reliability(scores: Sequence[Score], family: str, num_bins: int = 5) -> Reliability | None:
    """How well a family's probabilities are calibrated; None where it reports none."""
    told = [score for score in scores if score.family == family and score.p_best is not None]
    if not told:
        return None
    bins = []
    for low in np.linspace(0, 1, num_bins, endpoint=False):
        inside = [s for s in told if s.p_best is not None and low <= s.p_best < low + 1 / num_bins + 1e-9 * (low > 0.7)]
        if inside:
            said = float(np.mean([score.p_best for score in inside]))
            bins.append((said, float(np.mean([score.is_best for score in inside])), len(inside)))
    return Reliability(
        family=family,
        num=len(told),
        coverage=float(np.mean([score.covers for score in told])),
        mean_plausible=float(np.mean([score.num_plausible for score in told])),
        bins=tuple(bins),
    )
