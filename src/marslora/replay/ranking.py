"""Regret at equal cost, paired differences with intervals, and whether probabilities mean what they say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marslora.core.decision import Interval
from marslora.core.seeds import derive
from marslora.replay.benchmark import ReplayScore

Array = NDArray[np.float64]
NUM_BOOTSTRAPS = 2000
LEVEL = 0.9
SLACK = 0.005
"""Run equivalents that a setting may cost more than asked for."""


Simulation = tuple[str, int, float]
"""Table, seed, limit on parameters: as `ReplayScore.world`."""


@dataclass(frozen=True)
class FamilyCurve:
    """Regret of a family over what it spends: S settings, cheapest first, on the W worlds that all of them saw."""

    family: str
    settings: tuple[str, ...]
    instances: tuple[Simulation, ...]
    cost_SW: Array
    """Run equivalents, the final run included."""
    regret_SW: Array

    @property
    def cost_S(self) -> Array:
        """Mean run equivalents of each setting."""
        mean: Array = self.cost_SW.mean(axis=1)
        return mean

    @property
    def clusters(self) -> list[tuple[str, int]]:
        """Of each world what is resampled together: limits on one table and seed share runs."""
        return [(table, seed) for table, seed, _ in self.instances]

    def on(self, instances: Collection[Simulation]) -> FamilyCurve:
        """The curve on fewer worlds."""
        kept = np.flatnonzero([instance in instances for instance in self.instances])
        order = np.argsort(self.cost_SW[:, kept].mean(axis=1), kind="stable")
        return FamilyCurve(
            self.family,
            tuple(self.settings[n] for n in order),
            tuple(self.instances[n] for n in kept),
            self.cost_SW[np.ix_(order, kept)],
            self.regret_SW[np.ix_(order, kept)],
        )

    def regret_at(self, cost: float) -> Array | None:
        """Regret on each world at a mean cost, between two settings by a line; None below the cheapest setting's cost.

        A setting is never worse than the best cheaper one: nobody has to spend what they may.
        """
        cost_S = self.cost_S
        num = int((cost_S <= cost + SLACK).sum())
        if num == 0:
            return None
        best: Array = self.regret_SW[:num][self.regret_SW[:num].mean(axis=1).argmin()]
        if num == len(cost_S):
            return best
        share = np.clip((cost - cost_S[num - 1]) / (cost_S[num] - cost_S[num - 1]), 0, 1)
        mixed: Array = (1 - share) * self.regret_SW[num - 1] + share * self.regret_SW[num]
        return best if best.mean() < mixed.mean() else mixed


def curves(scores: Sequence[ReplayScore]) -> dict[str, FamilyCurve]:
    """The curve of every family that has a world which all its settings saw; worlds in the order of the scores."""
    order = dict.fromkeys(score.instance for score in scores)
    by_family: dict[str, dict[str, dict[Simulation, ReplayScore]]] = defaultdict(lambda: defaultdict(dict))
    for score in scores:
        by_family[score.family][score.setting][score.instance] = score
    found = {}
    for family, settings in by_family.items():
        instances = tuple(instance for instance in order if all(instance in seen for seen in settings.values()))
        if instances:
            cost_SW = np.array([[seen[instance].cost for instance in instances] for seen in settings.values()])
            regret_SW = np.array([[seen[instance].regret for instance in instances] for seen in settings.values()])
            found[family] = FamilyCurve(family, tuple(settings), instances, cost_SW, regret_SW).on(instances)
    return found


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
class RegretSummary:
    """A family at one cost."""

    family: str
    cost: float
    regret: Interval
    """Mean over its worlds, nats per answer token."""
    num_instances: int
    difference: Interval | None = None
    """Its regret minus the reference's, on the worlds that both saw; None for the reference itself."""
    reference_cost: float | None = None
    """What the reference had spent: as much, or, where it cannot be had for that, what its cheapest setting costs."""


def standings(scores: Sequence[ReplayScore], cost: float, reference: str) -> list[RegretSummary]:
    """Every family that can be had at a cost, compared with the reference on common worlds.

    Ordered by that difference, which unlike the mean regret is taken on the same worlds for both.
    """
    found = curves(scores)
    rows = [_standing(curve, cost, found.get(reference)) for curve in found.values()]
    had = [row for row in rows if row is not None]
    return sorted(had, key=lambda row: (row.difference.value if row.difference else 0.0, row.regret.value))


def _standing(curve: FamilyCurve, cost: float, reference: FamilyCurve | None) -> RegretSummary | None:
    regret_W = curve.regret_at(cost)
    if regret_W is None:
        return None
    regret, num_instances = mean_interval(regret_W, curve.clusters), len(curve.instances)
    instances = set(curve.instances) & set(reference.instances) if reference else set()
    if reference is None or curve.family == reference.family or not instances:
        return RegretSummary(curve.family, cost, regret, num_instances)
    own, other = curve.on(instances), reference.on(instances)
    spent = max(cost, float(other.cost_S[0]))
    mine, theirs = own.regret_at(max(cost, float(own.cost_S[0]))), other.regret_at(spent)
    assert mine is not None and theirs is not None
    return RegretSummary(curve.family, cost, regret, num_instances, mean_interval(mine - theirs, own.clusters), spent)


@dataclass(frozen=True)
class Bin:
    """Replays in which a strategy said much the same of its choice."""

    said: float
    """Mean probability of being best."""
    best_or_tied: float
    """Share in which the choice was the best, or could not be told from it by the table's seeds."""
    best: float
    """Share in which it was the best itself."""
    num: int


@dataclass(frozen=True)
class Reliability:
    """What a family says of itself against what is so."""

    family: str
    num: int
    """Replays in which it said anything."""
    coverage: float
    """Share of them whose reported 90 % set holds the best candidate, or one tied with it."""
    coverage_best: float
    """Share of them whose reported 90 % set holds the best candidate itself."""
    mean_plausible: float
    """Mean size of that set."""
    bins: tuple[Bin, ...]
    """By fifths of the probability."""
    indistinguishable: Mapping[str, float]
    """Share of replays with that verdict, by table."""


def reliability(scores: Sequence[ReplayScore], family: str, num_bins: int = 5) -> Reliability | None:
    """How well a family's probabilities are calibrated; None where it reports none."""
    told = [(score.p_best, score) for score in scores if score.family == family and score.p_best is not None]
    if not told:
        return None
    by_bin: dict[int, list[tuple[float, ReplayScore]]] = defaultdict(list)
    for said, score in told:
        by_bin[min(int(said * num_bins), num_bins - 1)].append((said, score))
    by_table: dict[str, list[bool]] = defaultdict(list)
    for _, score in told:
        by_table[score.table].append(score.indistinguishable)
    return Reliability(
        family=family,
        num=len(told),
        coverage=_mean(score.covers for _, score in told),
        coverage_best=_mean(score.covers_best for _, score in told),
        mean_plausible=_mean(score.num_plausible for _, score in told),
        bins=tuple(
            Bin(
                said=_mean(said for said, _ in inside),
                best_or_tied=_mean(score.is_best for _, score in inside),
                best=_mean(score.regret == 0 for _, score in inside),
                num=len(inside),
            )
            for _, inside in sorted(by_bin.items())
        ),
        indistinguishable={table: _mean(verdicts) for table, verdicts in by_table.items()},
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
