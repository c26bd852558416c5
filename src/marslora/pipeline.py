"""The stages of a study, each an artifact in its folder; the only file that knows both wings.

    prepare -> calibrate (rounds of packs) -> decide -> train -> export -> report

A stage returns its artifact if it is there and was made from the same inputs, so running a study again continues it.
Work is handed to an executor by dotted name: this file never imports torch.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from marslora import exporters, search
from marslora.core import kinds
from marslora.core.allocation import Allocation
from marslora.core.decision import Decision
from marslora.core.errors import StudyError
from marslora.core.parts import ModelInfo
from marslora.core.runs import (
    Advance,
    Event,
    Failure,
    FinalResult,
    MemberResult,
    Observation,
    PackResult,
    Prepared,
    Run,
)
from marslora.core.schedule import full_examples
from marslora.core.spec import FinalSpec, MemberSpec, PackSpec, PrepareSpec, TrainingSpec
from marslora.executors._base import AbstractExecutor
from marslora.executors.inline import Inline
from marslora.exporters._base import AbstractExporter
from marslora.search._base import AbstractStrategy, Problem
from marslora.store.study import Study

PREPARE = "marslora.engine.prepare:prepare"
RUN_PACK = "marslora.engine.worker:run_pack"
RUN_FINAL = "marslora.finetune.worker:run_final"
MAX_ROUNDS = 100


class Listener(Protocol):
    """Who wants to know how far the study is."""

    def stage(self, title: str) -> None:
        """A stage begins."""

    def advance(self, step: Advance) -> None:
        """A long piece of work has got further."""

    def note(self, text: str) -> None:
        """Something a person should read."""


@dataclass
class Silent:
    """A listener that shows nothing."""

    def stage(self, title: str) -> None:
        """Ignored."""

    def advance(self, step: Advance) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""


@dataclass
class Pipeline:
    """The stages of one study."""

    study: Study
    executor: AbstractExecutor = field(default_factory=Inline)
    listener: Listener = field(default_factory=Silent)
    report_to: tuple[str, ...] = ()

    def prepare(self) -> Prepared:
        """Load the model, find its parts, read and encode every row; kept in ``prepared.json``."""
        spec = self.study.spec
        inputs = spec.digest()
        if (known := self.study.read("prepared.json", Prepared, inputs)) is not None:
            return known
        self.listener.stage("Reading the model and the data")
        asked = PrepareSpec(
            model=spec.model,
            data=spec.data,
            batch_size=spec.training.batch_size,
            cache_folder=str(self.study.path("cache")),
        )
        prepared = self._one(PREPARE, asked, Prepared)
        self.study.write("prepared.json", prepared, inputs)
        return prepared

    def problem(self) -> Problem:
        """What the strategy has to solve."""
        spec = self.study.spec
        prepared = self.prepare()
        for part in spec.space.parts:
            prepared.info.part(part)
        return Problem(
            space=spec.space,
            num_train=prepared.data.num_train,
            full_examples=full_examples(spec.training, prepared.data.num_train),
            batch_size=spec.training.batch_size,
            count_parameters=lambda allocation: prepared.info.num_trainable(allocation, spec.training.full),
            seed=spec.search.seed,
            budget=spec.search.budget,
        )

    def strategy(self) -> AbstractStrategy:
        """The strategy that the spec names."""
        asked = self.study.spec.search.strategy
        return kinds.load(search, asked.name, AbstractStrategy).of(asked.options)

    def calibrate(self) -> list[Run]:
        """Measure what the strategy asks for, round after round; every observation is kept as it comes."""
        problem, strategy = self.problem(), self.strategy()
        for number in range(1, MAX_ROUNDS + 1):
            runs = self.study.runs()
            members = strategy.propose(problem, runs)
            if not members:
                return runs
            packs = self._packs(members, runs, problem)
            self.study.write_json(f"plan/round-{number:02d}.json", [pack.model_dump(mode="json") for pack in packs], "")
            self.listener.stage(f"Calibration, round {number}: {describe_members(members)}")
            self._train(packs, runs)
        raise StudyError(f"the strategy asked for more than {MAX_ROUNDS} rounds of measurements; this is its defect.")

    def decide(self) -> Decision:
        """Fit the laws and pick the allocation; kept in ``laws.json`` and ``decision.json``."""
        runs = self.calibrate()
        inputs = digest(self.study.spec.digest(), *(run.digest() for run in runs))
        if (known := self.study.read("decision.json", Decision, inputs)) is not None:
            return known
        self.listener.stage("Fitting the laws")
        decision = self.strategy().decide(self.problem(), runs)
        self.study.write_json("laws.json", [law.model_dump(mode="json") for law in decision.laws], inputs)
        self.study.write("decision.json", decision, inputs)
        return decision

    def train(self) -> FinalResult:
        """The final run of the chosen allocation; kept in ``final/``."""
        decision = self.decide()
        started = next((run.member for run in self.study.runs() if run.member.id == decision.continue_run), None)
        title = f"Training the chosen allocation ({decision.chosen})"
        return self._final("final", decision.chosen, title, started)

    def train_uniform(self) -> tuple[Allocation, FinalResult]:
        """The same full run at one rank for every part, as near as it gets to the same number of parameters."""
        problem = self.problem()
        allocation = equal_uniform(problem, self.decide().chosen)
        return allocation, self._final("uniform", allocation, f"Training the uniform baseline ({allocation})")

    def export(self, names: Sequence[str] = ()) -> list[Path]:
        """The decision as settings of other tools, in ``exports/``; all of them by default."""
        decision, prepared = self.decide(), self.prepare()
        written: list[Path] = []
        for name in names or kinds.names(exporters):
            exporter = kinds.load(exporters, name, AbstractExporter)()
            output = self.study.path("exports", name)
            output.mkdir(parents=True, exist_ok=True)
            adapter = self.study.path("adapter")
            written += exporter.export(decision, prepared.info, self.study.spec.training, adapter, output)
        return written

    def _final(self, name: str, allocation: Allocation, title: str, started: MemberSpec | None = None) -> FinalResult:
        spec, prepared = self.study.spec, self.prepare()
        problem = self.problem()
        asked = FinalSpec(
            model=spec.model,
            data=spec.data,
            training=spec.training,
            allocation=allocation,
            module_ranks=prepared.info.module_ranks(allocation),
            full_modules=full_modules(prepared.info, spec.training),
            full_examples=problem.full_examples,
            start_folder=str(self.study.path("members", started.id)) if started else None,
            output_folder=str(self.study.path(name)),
            cache_folder=str(self.study.path("cache")),
            seed=started.seed if started else spec.search.seed,
            order_seed=started.order_seed if started else spec.search.seed,
            report_to=self.report_to,
        )
        if (known := self.study.read(f"{name}.json", FinalResult, asked.digest())) is not None:
            return known
        self.listener.stage(title)
        result = self._one(RUN_FINAL, asked, FinalResult)
        self.study.write(f"{name}.json", result, asked.digest())
        return result

    def _packs(self, members: Sequence[MemberSpec], runs: Sequence[Run], problem: Problem) -> list[PackSpec]:
        spec = self.study.spec
        return [
            PackSpec(
                id=digest(*(f"{member.id}@{member.until_examples}" for member in group)),
                model=spec.model,
                data=spec.data,
                training=spec.training,
                full_examples=problem.full_examples,
                members=group,
                checkpoint_folder=str(self.study.path("members")),
                cache_folder=str(self.study.path("cache")),
            )
            for group in group_members(members, runs)
        ]

    def _train(self, packs: Sequence[PackSpec], runs: Sequence[Run]) -> None:
        total = float(sum(member.until_examples for pack in packs for member in pack.members))
        members = {member.id: member for pack in packs for member in pack.members}
        for member in members.values():
            self.study.trials.start(member)
        meter = Meter(total, {run.member.id: run.last_examples for run in runs if run.member.id in members})
        failures: list[Failure] = []

        def receive(event: Event) -> None:
            match event:
                case Observation():
                    self.study.trials.observe(event)
                case MemberResult():
                    self.study.trials.finish(event)
                    meter.seen[event.member] = members[event.member].until_examples
                    self.listener.advance(meter.step())
                    if event.status == "diverged":
                        self.listener.note(f"{event.member} diverged after {event.examples} examples: {event.message}")
                case Failure():
                    failures.append(event)
                    self.listener.note(f"A pack failed: {event.error}: {event.message}")
                    for member in next(pack for pack in packs if pack.id == event.pack).members:
                        self.study.trials.finish(
                            MemberResult(member=member.id, status="failed", examples=0, message=event.message)
                        )
                case Advance():
                    self.listener.advance(event)
                case PackResult():
                    pass

        self.executor.run(RUN_PACK, packs, receive)
        if len(failures) == len(packs):
            raise StudyError(f"every pack failed; the first said: {failures[0].error}: {failures[0].message}")

    def _one(self, work: str, spec: PrepareSpec | FinalSpec, kind: type[Prepared] | type[FinalResult]):  # type: ignore[no-untyped-def]
        found: list[Event] = []

        def receive(event: Event) -> None:
            match event:
                case Advance():
                    self.listener.advance(event)
                case Failure():
                    raise StudyError(f"{event.error}: {event.message}")
                case _ if isinstance(event, kind):
                    found.append(event)

        self.executor.run(work, [spec], receive)
        if not found:
            raise StudyError(f"{work} ended without a result.")
        return found[-1]


@dataclass
class Meter:
    """Training examples of a calibration round, seen and to come; what a resumed round had seen does not count."""

    total: float
    seen: dict[str, int] = field(default_factory=dict)

    def step(self) -> Advance:
        """The round's bar."""
        return Advance(task="calibration", done=float(sum(self.seen.values())), total=self.total)


def full_modules(info: ModelInfo, training: TrainingSpec) -> tuple[str, ...]:
    """The linears that are trained whole."""
    return tuple(linear.name for part in training.full for linear in info.part(part).alive)


def group_members(members: Sequence[MemberSpec], runs: Sequence[Run]) -> list[tuple[MemberSpec, ...]]:
    """Members that can share their batches: the same rows, order, start, and parts left alone."""
    seen = {run.member.id: run.last_examples for run in runs}
    groups: dict[tuple[object, ...], list[MemberSpec]] = defaultdict(list)
    for member in members:
        key = (member.data_examples, member.order_seed, seen.get(member.id, 0), frozenset(member.allocation.active))
        groups[key].append(member)
    return [tuple(group) for group in groups.values()]


def equal_uniform(problem: Problem, allocation: Allocation) -> Allocation:
    """One rank for every searched part, as near as it gets to the trainable parameters of ``allocation``."""
    wanted = problem.count_parameters(allocation)

    def uniform(rank: int) -> Allocation:
        return allocation.replace(**dict.fromkeys(problem.space.searched, rank))

    largest = max(problem.space.ladder(part)[-1] for part in problem.space.parts)
    return min(map(uniform, range(1, largest + 1)), key=lambda a: abs(problem.count_parameters(a) - wanted))


def describe_members(members: Sequence[MemberSpec]) -> str:
    """``8 runs for convergence of vision, 4 for joint``."""
    counts: dict[str, int] = defaultdict(int)
    for member in members:
        counts[member.purpose or "measurement"] += 1
    return ", ".join(f"{count} x {purpose}" for purpose, count in counts.items())


def digest(*texts: str) -> str:
    """16 hex digits of several texts."""
    return hashlib.sha256("/".join(texts).encode()).hexdigest()[:16]
