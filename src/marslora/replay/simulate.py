"""A table of finished runs instead of training: a strategy gets its runs at once and is charged what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from marslora.core.decision import DecisionRecord
from marslora.core.errors import ConfigError
from marslora.core.runs import Cost, Run
from marslora.core.schedule import few_evaluation_steps
from marslora.core.seeds import derive
from marslora.core.setting import Setting
from marslora.core.spec import VALIDATION_WORK, MemberSpec, TrainingSpec
from marslora.replay.table import FinishedRun, RunTable
from marslora.strategies import MAX_ROUNDS, AbstractStrategy, Problem

NUM_VALIDATION = 128
"""Rows of a validation of tables whose header does not say: those of the embedded tasks."""
FULL_VALIDATIONS = TrainingSpec.model_fields["evaluations"].default
"""Validations of a full run: as many as a study has by default."""
TIE_ERRORS = 2
"""Candidates whose means differ by at most this many standard errors are tied. A convention, about 95 %."""


class MissingRunError(ConfigError):
    """A strategy asked for a run that is not in the table."""


@dataclass(frozen=True)
class GroundTruth:
    """How good every candidate is: its lowest loss within a full run, which is what a final run keeps."""

    loss: Mapping[Setting, float]
    """Mean over all seeds of the table, nats per answer token."""
    seed_sd: float
    """Standard deviation of one run's lowest loss over seeds, pooled over candidates."""
    num_seeds: int

    @property
    def best(self) -> Setting:
        """The candidate with the least mean loss."""
        return min(self.loss, key=self.loss.__getitem__)

    def regret(self, setting: Setting) -> float:
        """Mean loss above that of the best candidate, in nats per answer token."""
        return self.loss[setting] - self.loss[self.best]

    def find_ties(self) -> frozenset[Setting]:
        """The candidates that the seeds of the table cannot tell from the best: within two standard errors."""
        bound = TIE_ERRORS * self.seed_sd * (2 / self.num_seeds) ** 0.5
        return frozenset(setting for setting in self.loss if self.regret(setting) <= bound)


@dataclass
class Simulation:
    """A table in place of a trainer: one of its seeds, the problem that is posed on it, and what was spent so far."""

    table: RunTable
    seed: int
    """Which of the table's seeds the strategy sees."""
    budget: float | None = None
    """Full runs before the final run, as `Problem.budget`."""
    max_share: float = 1.0
    """Candidates have at most this share of the largest candidate's trainable parameters."""
    spent: Cost = field(default_factory=Cost)
    work: float = 0.0
    """Training and validation so far, in training examples."""

    @cached_property
    def problem(self) -> Problem:
        """The problem that the strategy is given."""
        header = self.table.header
        num_trainable = {entry.allocation: entry.num_trainable for entry in self.table}
        largest = max(num_trainable[allocation] for allocation in header.space.allocations())
        return Problem(
            space=header.space,
            num_train=header.num_train,
            full_examples=header.full_examples,
            batch_size=header.batch_size,
            num_validation=header.num_validation or NUM_VALIDATION,
            full_validations=FULL_VALIDATIONS,
            points=self._list_common_points(),
            learning_rates=self.table.list_rates(),
            part_rate_factors=tuple(header.part_rate_factors.items()),
            count_parameters=num_trainable.__getitem__,
            seed=self.seed,
            budget=self.budget,
            max_parameters=None if self.max_share >= 1 else round(self.max_share * largest),
        )

    @cached_property
    def truth(self) -> GroundTruth:
        """The candidates' losses, by all seeds of the table."""
        header, candidates = self.table.header, self.problem.candidates()
        losses = np.array([[self._find_lowest_loss(setting, seed) for seed in header.seeds] for setting in candidates])
        sd = float(np.sqrt(losses.var(axis=1, ddof=1).mean())) if len(header.seeds) > 1 else 0.0
        return GroundTruth(dict(zip(candidates, losses.mean(axis=1).tolist(), strict=True)), sd, len(header.seeds))

    def _list_common_points(self) -> tuple[int, ...]:
        """The points at which every full run of the table was measured."""
        header = self.table.header
        full = (set(entry.examples) for entry in self.table if entry.examples[-1] == header.full_examples)
        return tuple(sorted(set.intersection(*full) - {0}))

    def train(self, member: MemberSpec, before: Run | None) -> Run:
        """The run of a member until it has seen ``until_examples``; examples beyond ``before`` are charged."""
        entry = self._find_run(member)
        seen = before.last_examples if before else 0
        until = max(min(member.until_examples, entry.examples[-1]), seen)
        ends = before.examples if before else ()  # a run that went on keeps the points at which it once ended
        looks = [0, *self._list_validations(member, entry, until), *ends]
        examples = sorted({t for t in looks if t <= until})
        trained = sorted({t for t in (*entry.examples[1:], until) if t <= until}) if entry.train_loss else []
        share = (until - seen) / entry.examples[-1]
        cost = Cost(
            seconds=entry.seconds * share,
            examples=until - seen,
            flops=entry.flops * share,
            peak_bytes=entry.peak_bytes,
        )
        num_new = len(examples) - 1 - (before.num_validations if before else 0)
        self.spent += cost
        self.work += until - seen + VALIDATION_WORK * self.problem.num_validation * num_new
        return Run(
            member=member,
            status="diverged" if entry.status == "diverged" and until == entry.examples[-1] else "complete",
            examples=tuple(examples),
            validation_loss=tuple(interpolate_loss(entry, t) for t in examples),
            train_examples=tuple(trained),
            train_loss=tuple(average_train_loss(entry, t) for t in trained),
            cost=before.cost + cost if before else cost,
        )

    def _list_validations(self, member: MemberSpec, entry: FinishedRun, until: int) -> list[int]:
        """When a run is validated until it has seen ``until`` examples, as `MemberSpec.validations` says."""
        regular = [t for t in entry.examples if 0 < t <= until]
        if member.validations == "few":
            size = self.table.header.batch_size
            steps = few_evaluation_steps([t // size for t in regular], size, self.problem.num_validation)
            return [t for t in regular if t // size in steps]
        return [until] if member.validations == "end" else [*regular, until]

    def _find_run(self, member: MemberSpec) -> FinishedRun:
        seeds = self.table.header.seeds
        by_seed = {derive(self.problem.seed, "member", n) % 2**31: n for n in range(len(seeds))}
        seed = seeds[(seeds.index(self.seed) + by_seed.get(member.seed, 0)) % len(seeds)]
        key = (self._complete_setting(member.setting), member.data_examples, seed)
        if key not in self._run_index:
            raise MissingRunError(
                f"Table `{self.table.header.name}` has no run of {key[0]} on {member.data_examples} rows. "
                f"Replay the strategy on a table that holds the runs it asks for."
            )
        return self._run_index[key]

    def _complete_setting(self, setting: Setting) -> Setting:
        """The setting with the table's own learning rate, if none is searched."""
        rate = setting.learning_rate or self.table.header.learning_rate
        return setting.model_copy(update={"learning_rate": rate})

    def _find_lowest_loss(self, setting: Setting, seed: int) -> float:
        losses = self._run_index[self._complete_setting(setting), self.table.header.num_train, seed].validation_loss
        return min(loss if np.isfinite(loss) else np.inf for loss in losses)

    @cached_property
    def _run_index(self) -> dict[tuple[Setting, int, int], FinishedRun]:
        return self.table.index_runs()


def interpolate_loss(entry: FinishedRun, examples: int) -> float:
    """Validation loss after some examples: between two points, a straight line in the logarithms of both."""
    log_t = np.log1p(np.array(entry.examples, dtype=float))
    return float(np.exp(np.interp(np.log1p(examples), log_t, np.log(entry.validation_loss))))


def average_train_loss(entry: FinishedRun, until: int) -> float:
    """Mean training loss from the last point of the run before ``until`` up to there; between points, interpolated."""
    starts, ends = np.array(entry.examples[:-1], dtype=float), np.array(entry.examples[1:], dtype=float)
    start = float(starts[np.searchsorted(ends, until)])
    middle = np.log1p((starts + ends) / 2)
    return float(np.exp(np.interp(np.log1p((start + until) / 2), middle, np.log(entry.train_loss))))


@dataclass(frozen=True)
class Outcome:
    """What a strategy decided, and what it paid."""

    decision: DecisionRecord
    regret: float
    """Nats per answer token above the best candidate, by the table's seed means."""
    cost: float
    """Full runs with their validations, the final run included; one that continues a measured run pays for the rest."""
    calibration: float
    """Full runs before the final run."""
    seconds: float
    """``cost`` in seconds of the table's machine, the final run at the mean time of a full run."""
    num_rounds: int


def replay_strategy(strategy: AbstractStrategy, simulation: Simulation) -> Outcome:
    """Run a strategy to its decision; `MissingRunError` if the table lacks a run that it asks for."""
    problem, runs = simulation.problem, dict[str, Run]()
    rounds = 0
    while members := strategy.propose(problem, list(runs.values())):
        rounds += 1
        if rounds > MAX_ROUNDS:
            raise ConfigError(
                f"{type(strategy).__name__} still asked for runs after {MAX_ROUNDS} rounds. Its `propose` must return "
                "no members once enough is measured."
            )
        for member in members:
            runs[member.id] = simulation.train(member, runs.get(member.id))
    decision = strategy.decide(problem, list(runs.values()))
    continued = runs.get(decision.continue_run or "")
    begun = continued.last_examples if continued else 0
    left = 1 - begun / problem.full_work
    calibration = simulation.work / problem.full_work
    full = [entry.seconds for entry in simulation.table if entry.examples[-1] == problem.full_examples]
    return Outcome(
        decision=decision,
        regret=simulation.truth.regret(decision.setting),
        cost=calibration + left,
        calibration=calibration,
        seconds=simulation.spent.seconds + left * float(np.mean(full)),
        num_rounds=rounds,
    )
