"""Entrants on worlds: every strategy with every setting replayed on every table, seed and limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from multiprocessing import get_context
from typing import Any

from marslora import strategies
from marslora.core import plugins
from marslora.core.errors import ConfigError
from marslora.core.record import Record
from marslora.replay.simulate import MissingRunError, Outcome, Simulation, replay
from marslora.replay.table import Table
from marslora.strategies import AbstractStrategy

MAX_SHARES = (1.0, 0.5, 0.25)
"""Limits on trainable parameters, as shares of the largest candidate's: with less than all, ranks compete."""


@dataclass(frozen=True)
class Searcher:
    """A strategy with its options and budget. Entrants of one family differ in what they spend only."""

    family: str
    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    budget: float | None = None

    @property
    def setting(self) -> str:
        """What tells it from the others of its family."""
        given = {**self.options, **({} if self.budget is None else {"budget": self.budget})}
        return ", ".join(f"{name}={shown(value)}" for name, value in given.items())

    def make(self) -> AbstractStrategy:
        """The strategy."""
        return plugins.load(strategies, self.strategy, AbstractStrategy).of(self.options)


def shown(value: object) -> str:
    """An option's value, numbers with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class ReplayScore(Record):
    """One entrant on one world."""

    table: str
    seed: int
    max_share: float
    family: str
    setting: str
    cost: float
    """Run equivalents, the final run included."""
    calibration: float
    """Run equivalents before the final run."""
    seconds: float
    regret: float
    """Nats per answer token above the best candidate."""
    spread: float
    """Nats between the median candidate and the best: what there is to lose."""
    chosen: dict[str, int]
    is_best: bool
    """The best candidate, or one that the table's seeds cannot tell from it, was chosen."""
    p_best: float | None
    """What the strategy said of its choice."""
    num_plausible: int
    covers: bool
    """The best candidate, or one tied with it, lies in the strategy's plausible set."""
    covers_best: bool
    """The best candidate itself lies in it."""
    indistinguishable: bool
    num_rounds: int

    @property
    def instance(self) -> tuple[str, int, float]:
        """Which problem it was."""
        return self.table, self.seed, self.max_share


class Skipped(Record):
    """An entrant that could not take part on a table."""

    table: str
    family: str
    setting: str
    reason: str


REFERENCE = "successive halving, eta 4"
"""The family that others are compared with, where nothing else is said: it needs no law and is hard to beat."""


def standard_searchers() -> tuple[Searcher, ...]:
    """What a user could pick, over the range of costs that it allows."""
    rungs = (1 / 64, 1 / 32, 1 / 16, 1 / 8)
    budgets = (0.1, 0.15, 0.2, 0.3, 0.4, 0.6)
    return (
        *(Searcher(f"uniform r={rank}", "uniform", {"rank": rank}) for rank in (8, 16, 32)),
        *(Searcher("mars", "mars", {"fit_laws": False}, budget) for budget in budgets),
        *(Searcher("MARS as published", "mars_paper", budget=budget) for budget in (0.2, 0.5, 0.9)),
        *(
            Searcher(f"successive halving, eta {eta}", "successive_halving", {"eta": eta, "first_rung": rung})
            for eta in (2, 4)
            for rung in rungs
        ),
        *(Searcher("ASHA, eta 4", "asha", {"first_rung": 1 / 64}, budget) for budget in (0.2, 0.3, 0.5, 1.0, 2.0)),
        *(
            Searcher(f"Optuna {sampler}, quarter runs", "optuna_sampler", {"sampler": sampler, "share": 0.25}, budget)
            for sampler in ("tpe", "gp", "random")
            for budget in (0.5, 1.0, 2.0, 4.0)
        ),
        *(
            Searcher(f"Optuna {sampler}, full runs", "optuna_sampler", {"sampler": sampler}, budget)
            for sampler in ("tpe", "gp")
            for budget in (1.0, 2.0, 4.0, 8.0)
        ),
        Searcher("grid", "grid"),
    )


def instances(
    tables: Sequence[Table], max_shares: Sequence[float] = MAX_SHARES, seeds: Sequence[int] = ()
) -> Iterator[tuple[Table, int, float]]:
    """Every problem that the tables pose: each seed (or those of ``seeds``), each limit on parameters."""
    for table in tables:
        for max_share in max_shares:
            for seed in table.header.seeds:
                if not seeds or seed in seeds:
                    yield table, seed, max_share


def hold(
    tables: Sequence[Table],
    entrants: Sequence[Searcher],
    max_shares: Sequence[float] = MAX_SHARES,
    advance: Callable[[int, int], None] | None = None,
    *,
    seeds: Sequence[int] = (),
    workers: int = 1,
    skip: Callable[[Skipped], None] | None = None,
) -> list[ReplayScore]:
    """Replay every entrant on every world, in so many processes.

    ``advance`` is told how many replays are done, and of how many. ``skip`` is told of an entrant that asks for a run
    which its table lacks; without it that is a `ConfigError`.
    """
    posed = list(instances(tables, max_shares, seeds))
    if not posed:
        raise ConfigError(f"no table has a run of the seeds {list(seeds)}; theirs are {_seeds(tables)}.")
    scores: list[ReplayScore] = []
    for number, found in enumerate(_played(posed, entrants, workers), 1):
        scores += [each for each in found if isinstance(each, ReplayScore)]
        for each in found:
            if isinstance(each, Skipped):
                if skip is None:
                    raise ConfigError(each.reason)
                skip(each)
        if advance is not None:
            advance(number * len(entrants), len(posed) * len(entrants))
    return scores


def _seeds(tables: Sequence[Table]) -> list[int]:
    return sorted({seed for table in tables for seed in table.header.seeds})


def _played(
    posed: Sequence[tuple[Table, int, float]], entrants: Sequence[Searcher], workers: int
) -> Iterator[list[ReplayScore | Skipped]]:
    if workers <= 1:
        yield from map(play, posed, repeat(entrants))
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(play, posed, repeat(entrants))


def play(posed: tuple[Table, int, float], entrants: Sequence[Searcher]) -> list[ReplayScore | Skipped]:
    """Every entrant on one world."""
    table, seed, max_share = posed
    found: list[ReplayScore | Skipped] = []
    for entrant in entrants:
        instance = Simulation(table, seed, entrant.budget, max_share)
        try:
            found.append(score(entrant, instance, replay(entrant.make(), instance)))
        except MissingRunError as error:
            name = table.header.name
            found.append(Skipped(table=name, family=entrant.family, setting=entrant.setting, reason=str(error)))
    return found


def score(entrant: Searcher, instance: Simulation, outcome: Outcome) -> ReplayScore:
    """What an outcome is worth."""
    truth, decision = instance.truth, outcome.decision
    losses = sorted(truth.loss.values())
    return ReplayScore(
        table=instance.table.header.name,
        seed=instance.seed,
        max_share=instance.max_share,
        family=entrant.family,
        setting=entrant.setting,
        cost=outcome.cost,
        calibration=outcome.calibration,
        seconds=outcome.seconds,
        regret=outcome.regret,
        spread=losses[len(losses) // 2] - losses[0],
        chosen=decision.chosen.as_dict(),
        is_best=decision.chosen in truth.ties(),
        p_best=decision.candidate(decision.chosen).p_best,
        num_plausible=len(decision.plausible),
        covers_best=truth.best in decision.plausible,
        covers=not truth.ties().isdisjoint(decision.plausible),
        indistinguishable=decision.verdict == "indistinguishable",
        num_rounds=outcome.num_rounds,
    )
