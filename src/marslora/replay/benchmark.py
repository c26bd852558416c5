"""The benchmark behind `marslora bench`: every searcher replayed on every instance (table, seed, limit)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

from marslora.core.errors import ConfigError
from marslora.core.record import Record
from marslora.replay.searchers import Searcher
from marslora.replay.simulate import MissingRunError, Outcome, Simulation, replay_strategy
from marslora.replay.table import RunTable, TableHeader

MAX_SHARES = (1.0, 0.5, 0.25)
"""Limits on trainable parameters, as shares of the largest candidate's: under a limit, parts compete for rank."""
COSTS = (1.15, 1.4)
"""Full runs, the final run included, at which families are compared by default.

1.15 is cheap for `mars`; at 1.4 successive halving can be had for the first time (docs/search.md)."""
InstanceKey = tuple[str, int, float]
"""Table, seed, limit on parameters: which instance of the benchmark it was."""


class ReplayScore(Record):
    """One searcher on one instance."""

    table: str
    seed: int
    max_share: float
    family: str
    setting: str
    cost: float
    """Full runs, the final run included."""
    calibration: float
    """Full runs before the final run."""
    seconds: float
    """Seconds of the table's machine, the final run included."""
    regret: float
    """Nats per answer token above the best candidate."""
    median_regret: float
    """Regret of the median candidate: what there is to lose."""
    chosen: dict[str, int]
    learning_rate: float | None = None
    """The chosen learning rate, if it is searched."""
    is_best: bool
    """Whether the best candidate was chosen, or one that the table's seeds cannot tell from it."""
    p_best: float | None
    """The probability of being best that the strategy stated for its choice."""
    num_plausible: int
    """Size of the strategy's plausible set."""
    covers: bool
    """Whether the best candidate, or one tied with it, lies in the plausible set."""
    covers_best: bool
    """Whether the best candidate itself lies in it."""
    indistinguishable: bool
    """Whether that was the verdict."""
    num_rounds: int

    @property
    def instance(self) -> InstanceKey:
        """Which instance it was."""
        return self.table, self.seed, self.max_share


class SkippedSearcher(Record):
    """A searcher that could not be replayed on a table, because the table lacks a run that it asked for."""

    table: str
    family: str
    setting: str
    reason: str


class BenchmarkResult(Record):
    """A whole benchmark: what `marslora bench` writes, and what its page is made from."""

    tables: tuple[TableHeader, ...]
    reference: str
    """The family that others are compared with."""
    costs: tuple[float, ...]
    """Full runs, the final run included, at which families are compared."""
    scores: tuple[ReplayScore, ...]
    skipped: tuple[SkippedSearcher, ...] = ()
    seconds: float = 0.0
    """Wall time of all replays."""

    @property
    def families(self) -> tuple[str, ...]:
        """The families, in the order in which they were given."""
        return tuple(dict.fromkeys(score.family for score in self.scores))

    def notes(self) -> list[str]:
        """Which families were left out on which tables: one line for each, with the reason on its first table."""
        reasons: dict[str, dict[str, str]] = {}
        for each in self.skipped:
            reasons.setdefault(each.family, {}).setdefault(each.table, each.reason)
        return [
            f"{family} was left out on {', '.join(by_table)}: {next(iter(by_table.values()))}"
            for family, by_table in reasons.items()
        ]


def run_benchmark(
    tables: Sequence[RunTable],
    searchers: Sequence[Searcher],
    reference: str,
    *,
    costs: Sequence[float] = COSTS,
    max_shares: Sequence[float] = MAX_SHARES,
    seeds: Sequence[int] = (),
    workers: int = 1,
    advance: Callable[[int, int], None] | None = None,
) -> BenchmarkResult:
    """Replay the searchers on the tables.

    A searcher that asks for runs which a table lacks is left out there, and noted.

    Args:
        tables: Tables of finished runs.
        searchers: Those of one family differ in what they spend.
        reference: The family that others are compared with.
        costs: Full runs, the final run included, at which families are compared.
        max_shares: Limits on trainable parameters, as shares of the largest candidate's.
        seeds: Which of the tables' seeds are replayed; empty: all.
        workers: Processes.
        advance: Called with how many replays are done, and of how many.
    """
    skipped: list[SkippedSearcher] = []
    started = time.monotonic()
    scores = replay_searchers(tables, searchers, max_shares, advance, seeds=seeds, workers=workers, skip=skipped.append)
    return BenchmarkResult(
        tables=tuple(table.header for table in tables),
        reference=reference,
        costs=tuple(costs),
        scores=tuple(scores),
        skipped=tuple(skipped),
        seconds=time.monotonic() - started,
    )


def list_instances(
    tables: Sequence[RunTable], max_shares: Sequence[float] = MAX_SHARES, seeds: Sequence[int] = ()
) -> Iterator[tuple[RunTable, int, float]]:
    """Every instance that the tables pose: each seed (or those of ``seeds``) under each limit on parameters."""
    for table in tables:
        for max_share in max_shares:
            for seed in table.header.seeds:
                if not seeds or seed in seeds:
                    yield table, seed, max_share


def replay_searchers(
    tables: Sequence[RunTable],
    searchers: Sequence[Searcher],
    max_shares: Sequence[float] = MAX_SHARES,
    advance: Callable[[int, int], None] | None = None,
    *,
    seeds: Sequence[int] = (),
    workers: int = 1,
    skip: Callable[[SkippedSearcher], None] | None = None,
) -> list[ReplayScore]:
    """Replay every searcher on every instance, see `run_benchmark`.

    ``skip`` is called with each searcher that asks for a run which its table lacks; without it that is a `ConfigError`.
    """
    instances = list(list_instances(tables, max_shares, seeds))
    if not instances:
        known = sorted({seed for table in tables for seed in table.header.seeds})
        raise ConfigError(f"No table has a run with one of the seeds {list(seeds)}. Their seeds are {known}.")
    scores: list[ReplayScore] = []
    for number, results in enumerate(_replay_instances(instances, searchers, workers), 1):
        scores += [each for each in results if isinstance(each, ReplayScore)]
        for each in results:
            if isinstance(each, SkippedSearcher):
                if skip is None:
                    raise ConfigError(each.reason)
                skip(each)
        if advance is not None:
            advance(number * len(searchers), len(instances) * len(searchers))
    return scores


def _replay_instances(
    instances: Sequence[tuple[RunTable, int, float]], searchers: Sequence[Searcher], workers: int
) -> Iterator[list[ReplayScore | SkippedSearcher]]:
    if workers <= 1:
        yield from map(replay_instance, instances, repeat(searchers))
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(replay_instance, instances, repeat(searchers))


def replay_instance(
    instance: tuple[RunTable, int, float], searchers: Sequence[Searcher]
) -> list[ReplayScore | SkippedSearcher]:
    """Every searcher on one instance."""
    table, seed, max_share = instance
    results: list[ReplayScore | SkippedSearcher] = []
    for searcher in searchers:
        simulation = Simulation(table, seed, searcher.budget, max_share)
        try:
            outcome = replay_strategy(searcher.make_strategy(), simulation)
            results.append(score_outcome(searcher, simulation, outcome))
        except MissingRunError as error:
            name = table.header.name
            skipped = SkippedSearcher(table=name, family=searcher.family, setting=searcher.setting, reason=str(error))
            results.append(skipped)
    return results


def score_outcome(searcher: Searcher, simulation: Simulation, outcome: Outcome) -> ReplayScore:
    """What a searcher's outcome is worth, by the ground truth of the simulation."""
    truth, decision = simulation.truth, outcome.decision
    losses = sorted(truth.loss.values())
    return ReplayScore(
        table=simulation.table.header.name,
        seed=simulation.seed,
        max_share=simulation.max_share,
        family=searcher.family,
        setting=searcher.setting,
        cost=outcome.cost,
        calibration=outcome.calibration,
        seconds=outcome.seconds,
        regret=outcome.regret,
        median_regret=losses[len(losses) // 2] - losses[0],
        chosen=decision.chosen.as_dict(),
        learning_rate=decision.learning_rate,
        is_best=decision.setting in truth.find_ties(),
        p_best=decision.chosen_candidate.p_best,
        num_plausible=len(decision.plausible),
        covers_best=truth.best in decision.plausible,
        covers=not truth.find_ties().isdisjoint(decision.plausible),
        indistinguishable=decision.verdict == "indistinguishable",
        num_rounds=outcome.num_rounds,
    )
