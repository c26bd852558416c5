"""Regret at equal cost, paired differences with intervals, and whether probabilities mean what they say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from marslora.core.arrays import Array
from marslora.core.decision import LEVEL, Interval
from marslora.core.seeds import derive
from marslora.replay.benchmark import InstanceKey, ReplayScore

NUM_BOOTSTRAPS = 2000
"""Replicates behind an interval of a mean. A convention: the ends of a 90 % interval then hardly move."""
SLACK = 0.005
"""Full runs by which a setting may exceed the cost at which it is compared: lengths are rounded to whole batches."""
NUM_BINS = 5
"""Bins of the stated probability: with more, a bin would hold too few replays."""


@dataclass(frozen=True)
class FamilyCurve:
    """Regret of a family against its cost: S settings, cheapest first, on the W instances that all of them have."""

    family: str
    settings: tuple[str, ...]
    instances: tuple[InstanceKey, ...]
    cost_SW: Array
    """Full runs, the final run included."""
    regret_SW: Array

    @property
    def cost_S(self) -> Array:
        """Mean full runs of each setting."""
        mean: Array = self.cost_SW.mean(axis=1)
        return mean

    @property
    def clusters(self) -> list[tuple[str, int]]:
        """For each instance, what is resampled together: limits on one table and seed share their runs."""
        return [(table, seed) for table, seed, _ in self.instances]

    def restrict_to(self, instances: Collection[InstanceKey]) -> FamilyCurve:
        """The curve on some of its instances."""
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
        """Regret on each instance at a mean cost, interpolated between two settings; None below the cheapest one.

        A setting never counts as worse than the best cheaper one: nobody has to spend all that they may.
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


def build_family_curves(scores: Sequence[ReplayScore]) -> dict[str, FamilyCurve]:
    """The curve of every family with an instance that all its settings have; instances in the order of the scores."""
    order = dict.fromkeys(score.instance for score in scores)
    by_family: dict[str, dict[str, dict[InstanceKey, ReplayScore]]] = defaultdict(lambda: defaultdict(dict))
    for score in scores:
        by_family[score.family][score.setting][score.instance] = score
    family_curves = {}
    for family, settings in by_family.items():
        instances = tuple(instance for instance in order if all(instance in seen for seen in settings.values()))
        if instances:
            cost_SW = np.array([[seen[instance].cost for instance in instances] for seen in settings.values()])
            regret_SW = np.array([[seen[instance].regret for instance in instances] for seen in settings.values()])
            family_curves[family] = FamilyCurve(family, tuple(settings), instances, cost_SW, regret_SW).restrict_to(
                instances
            )
    return family_curves


def bootstrap_mean(value_W: Array, cluster_W: Sequence[object]) -> Interval:
    """The mean over W instances with its bootstrap interval; instances of one cluster are resampled together."""
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
    """The regret of a family at one cost, and the difference to the reference."""

    family: str
    cost: float
    regret: Interval
    """Mean over its instances, nats per answer token."""
    num_instances: int
    difference: Interval | None = None
    """Its regret minus the reference's, on the instances that both have; None for the reference itself."""
    reference_cost: float | None = None
    """What the reference spent: as much, or the cost of its cheapest setting if that is more."""


def rank_families(scores: Sequence[ReplayScore], cost: float, reference: str) -> list[RegretSummary]:
    """Every family with a setting at most as expensive as ``cost``, compared with the reference on common instances.

    Ordered by that difference, which unlike the mean regret is taken on the same instances for both.
    """
    family_curves = build_family_curves(scores)
    rows = [_summarise_family(curve, cost, family_curves.get(reference)) for curve in family_curves.values()]
    return sorted(
        (row for row in rows if row is not None),
        key=lambda row: (row.difference.value if row.difference else 0.0, row.regret.value),
    )


def _summarise_family(curve: FamilyCurve, cost: float, reference: FamilyCurve | None) -> RegretSummary | None:
    regret_W = curve.regret_at(cost)
    if regret_W is None:
        return None
    regret, num_instances = bootstrap_mean(regret_W, curve.clusters), len(curve.instances)
    instances = set(curve.instances) & set(reference.instances) if reference else set()
    if reference is None or curve.family == reference.family or not instances:
        return RegretSummary(curve.family, cost, regret, num_instances)
    own, other = curve.restrict_to(instances), reference.restrict_to(instances)
    spent = max(cost, float(other.cost_S[0]))
    mine, theirs = own.regret_at(max(cost, float(own.cost_S[0]))), other.regret_at(spent)
    assert mine is not None and theirs is not None
    return RegretSummary(curve.family, cost, regret, num_instances, bootstrap_mean(mine - theirs, own.clusters), spent)


@dataclass(frozen=True)
class Bin:
    """Replays in which a strategy stated much the same probability for its choice."""

    stated: float
    """Mean stated probability of being best."""
    best_or_tied: float
    """Share in which the choice was the best candidate, or one that the table's seeds cannot tell from it."""
    best: float
    """Share in which it was the best candidate itself."""
    num: int


@dataclass(frozen=True)
class Reliability:
    """The probabilities that a family stated, against what was true."""

    family: str
    num: int
    """Replays in which it stated a probability."""
    coverage: float
    """Share of them whose reported plausible set holds the best candidate, or one tied with it."""
    coverage_best: float
    """Share of them whose reported plausible set holds the best candidate itself."""
    mean_plausible: float
    """Mean size of that set."""
    bins: tuple[Bin, ...]
    """By equal steps of the stated probability."""
    indistinguishable: Mapping[str, float]
    """Share of replays with that verdict, by table."""


def measure_reliability(scores: Sequence[ReplayScore], family: str, num_bins: int = NUM_BINS) -> Reliability | None:
    """How well a family's probabilities are calibrated; None if it states none."""
    stated = [(score.p_best, score) for score in scores if score.family == family and score.p_best is not None]
    if not stated:
        return None
    by_bin: dict[int, list[tuple[float, ReplayScore]]] = defaultdict(list)
    for probability, score in stated:
        by_bin[min(int(probability * num_bins), num_bins - 1)].append((probability, score))
    by_table: dict[str, list[bool]] = defaultdict(list)
    for _, score in stated:
        by_table[score.table].append(score.indistinguishable)
    return Reliability(
        family=family,
        num=len(stated),
        coverage=_average(score.covers for _, score in stated),
        coverage_best=_average(score.covers_best for _, score in stated),
        mean_plausible=_average(score.num_plausible for _, score in stated),
        bins=tuple(
            Bin(
                stated=_average(probability for probability, _ in inside),
                best_or_tied=_average(score.is_best for _, score in inside),
                best=_average(score.regret == 0 for _, score in inside),
                num=len(inside),
            )
            for _, inside in sorted(by_bin.items())
        ),
        indistinguishable={table: _average(verdicts) for table, verdicts in by_table.items()},
    )


def _average(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
