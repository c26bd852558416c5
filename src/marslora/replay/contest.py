"""Entrants on worlds: every strategy with every setting replayed on every table, seed and limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from marslora import strategies
from marslora.core import kinds
from marslora.core.record import Record
from marslora.replay.simulate import Outcome, World, replay
from marslora.replay.table import Table
from marslora.strategies._base import AbstractStrategy

MAX_SHARES = (1.0, 0.5, 0.25)
"""Limits on trainable parameters, as shares of the largest candidate's: with less than all, ranks compete."""


@dataclass(frozen=True)
class Entrant:
    """A strategy with its options and budget. Entrants of one family differ in what they spend only."""

    family: str
    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    budget: float | None = None

    def make(self) -> AbstractStrategy:
        """The strategy."""
        return kinds.load(strategies, self.strategy, AbstractStrategy).of(self.options)


class Score(Record):
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
    """The best candidate lies in the strategy's plausible set."""
    indistinguishable: bool
    num_rounds: int

    @property
    def world(self) -> tuple[str, int, float]:
        """Which problem it was."""
        return self.table, self.seed, self.max_share


def standard_entrants() -> tuple[Entrant, ...]:
    """What a user could pick, over the range of costs that it allows."""
    rungs = (1 / 64, 1 / 32, 1 / 16, 1 / 8)
    budgets = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
    return (
        *(Entrant(f"uniform r={rank}", "uniform", {"rank": rank}) for rank in (8, 16, 32)),
        *(Entrant("mars", "mars", budget=budget) for budget in budgets),
        *(
            Entrant(f"successive halving, eta {eta}", "successive_halving", {"eta": eta, "first_rung": rung})
            for eta in (2, 4)
            for rung in rungs
        ),
        *(Entrant("ASHA, eta 4", "asha", {"first_rung": 1 / 64}, budget) for budget in (0.2, 0.3, 0.5, 1.0, 2.0)),
        *(
            Entrant(f"Optuna {sampler}, quarter runs", "optuna_sampler", {"sampler": sampler, "share": 0.25}, budget)
            for sampler in ("tpe", "gp", "random")
            for budget in (0.5, 1.0, 2.0, 4.0)
        ),
        *(
            Entrant(f"Optuna {sampler}, full runs", "optuna_sampler", {"sampler": sampler}, budget)
            for sampler in ("tpe", "gp")
            for budget in (1.0, 2.0, 4.0, 8.0)
        ),
        Entrant("grid", "grid"),
    )


def worlds(tables: Sequence[Table], max_shares: Sequence[float] = MAX_SHARES) -> Iterator[tuple[Table, int, float]]:
    """Every problem that the tables pose: each seed, each limit on parameters."""
    for table in tables:
        for max_share in max_shares:
            for seed in table.header.seeds:
                yield table, seed, max_share


def hold(
    tables: Sequence[Table],
    entrants: Sequence[Entrant],
    max_shares: Sequence[float] = MAX_SHARES,
    advance: Callable[[int, int], None] | None = None,
) -> list[Score]:
    """Replay every entrant on every world; ``advance`` is told how many are done, and of how many."""
    posed = list(worlds(tables, max_shares))
    scores = []
    for table, seed, max_share in posed:
        for entrant in entrants:
            world = World(table, seed, entrant.budget, max_share)
            scores.append(score(entrant, world, replay(entrant.make(), world)))
            if advance is not None:
                advance(len(scores), len(posed) * len(entrants))
    return scores


def score(entrant: Entrant, world: World, outcome: Outcome) -> Score:
    """What an outcome is worth."""
    truth, decision = world.truth, outcome.decision
    losses = sorted(truth.loss.values())
    setting = ", ".join(f"{name}={value:.3g}" for name, value in entrant.options.items() if isinstance(value, float))
    if entrant.budget is not None:
        setting = ", ".join(filter(None, (setting, f"budget={entrant.budget:g}")))
    return Score(
        table=world.table.header.name,
        seed=world.seed,
        max_share=world.max_share,
        family=entrant.family,
        setting=setting,
        cost=outcome.cost,
        calibration=outcome.calibration,
        seconds=outcome.seconds,
        regret=outcome.regret,
        spread=losses[len(losses) // 2] - losses[0],
        chosen=decision.chosen.as_dict(),
        is_best=decision.chosen in truth.ties(),
        p_best=decision.candidate(decision.chosen).p_best,
        num_plausible=len(decision.plausible),
        covers=truth.best in decision.plausible,
        indistinguishable=decision.verdict == "indistinguishable",
        num_rounds=outcome.num_rounds,
    )
