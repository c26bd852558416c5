"""The stages of a study. Each leaves an artifact in the study's folder.

    prepare -> calibrate (rounds of packs) -> decide -> train -> export -> report

A stage whose artifact exists and was made from the same inputs returns it, so running a study again continues it.
This file and `comparison/stages.py` are the only ones that use both the packages that decide (strategies, store) and
those that train (engine, finetune). They hand work to an executor by dotted name and never import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from marslora.checks import make_strategy
from marslora.core.data_files import data_fingerprint, has_rows_in_memory, stamp_model
from marslora.core.decision import DecisionRecord
from marslora.core.errors import StudyError
from marslora.core.packs import describe_members, group_members, split_groups
from marslora.core.progress import Listener, SilentListener
from marslora.core.promise import check_promise
from marslora.core.record import digest_texts
from marslora.core.runs import CalibrationRuns, FinalResult, Prepared, Run
from marslora.core.schedule import count_final_validations, full_examples, list_regular_points, list_validations
from marslora.core.setting import Setting
from marslora.core.spec import (
    VALIDATION_WORK,
    FinalSpec,
    MemberSpec,
    PackSpec,
    PrepareSpec,
)
from marslora.executors import AbstractExecutor
from marslora.executors.inline import Inline
from marslora.exports import export_decision
from marslora.problems import complete_summary
from marslora.rounds import train_packs
from marslora.run_options import RunOptions
from marslora.store.checkpoints import STATE_FILE
from marslora.store.study import Study
from marslora.store.trial_records import FULL_EXAMPLES, TRAINING_ROWS
from marslora.strategies import MAX_ROUNDS, MIN_STEPS, Problem, find_baseline, sum_costs

PREPARE = "marslora.engine.prepare:prepare"
RUN_PACK = "marslora.engine.worker:run_pack"
TRACK_CALIBRATION = "marslora.finetune.calibration_trackers:report"
RUN_FINAL = "marslora.finetune.worker:run_final"
FULL_RUNS = {"final": "chosen setting", "uniform": "uniform baseline"}
"""What the full runs are, by their folders: shown while they train, and in dashboards."""
BUDGET_TOLERANCE = 1.1
"""How many times its budget a search may cost without a note. Chosen by convention: runs are whole batches."""


@dataclass
class Pipeline:
    """The stages of one study."""

    study: Study
    executor: AbstractExecutor = field(default_factory=Inline)
    listener: Listener = field(default_factory=SilentListener)
    options: RunOptions = field(default_factory=RunOptions)
    _prepared: Prepared | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.study.tell = self.listener.note

    def prepare(self) -> Prepared:
        """Load the model, find its parts, read and encode every row; stored as ``prepared.json``.

        Raises `StudyError` if the rows are not those that the study began with.
        """
        if self._prepared is None:
            spec = self.study.spec
            inputs = digest_texts(spec.digest(), data_fingerprint(spec.data), stamp_model(spec.model.path))
            known = self.study.read("prepared.json", Prepared, inputs)
            self._prepared = self._read_data(inputs) if known is None or has_rows_in_memory(spec.data) else known
        return self._prepared

    def _read_data(self, inputs: str) -> Prepared:
        spec = self.study.spec
        self.listener.stage("Reading the model and the data")
        request = PrepareSpec(
            model=spec.model,
            data=spec.data,
            optimizer=spec.training.optimizer,
            batch_size=spec.training.batch_size,
            token_indices=spec.training.trainable_token_indices,
            cache_folder=str(self.study.path("cache")),
        )
        prepared = self.executor.ask(PREPARE, request, Prepared, self.listener.advance)
        before = self.study.read("prepared.json", Prepared)
        if before is not None and before.data.fingerprint != prepared.data.fingerprint:
            raise StudyError(
                f"the rows of {', '.join(spec.data.train)} are not those that {self.study.folder} began with. "
                "Restore them, or choose another study folder (--study)."
            )
        if before is not None and before.model_fingerprint not in ("", prepared.model_fingerprint):
            raise StudyError(
                f"the model {spec.model.path} is not the one that {self.study.folder} began with: its weights or its "
                "configuration differ. Restore it, or choose another study folder (--study)."
            )
        for warning in prepared.info.warnings:
            self.listener.note(warning)
        self.study.write("prepared.json", prepared, inputs)
        self.study.write_spec()
        return prepared

    @cached_property
    def problem(self) -> Problem:
        """The search problem that the strategy solves: parts that no gradient reaches are none of its choices.

        Raises `ConfigError` for a part that the model does not have, and if no gradient reaches any.
        """
        spec = self.study.spec
        prepared = self.prepare()
        for part in (*spec.space.parts, *spec.training.part_learning_rates, *spec.part_rate_factors):
            prepared.info.part(part)
        full = full_examples(spec.training, prepared.data.num_train)
        return Problem(
            space=prepared.info.leave_unreached(spec.space),
            num_train=prepared.data.num_train,
            full_examples=full,
            batch_size=spec.training.batch_size,
            num_validation=prepared.data.num_validation,
            full_validations=count_final_validations(spec.training, full),
            points=list_regular_points(spec.training, full),
            learning_rates=spec.learning_rates,
            part_rate_factors=tuple(
                (part, own) for part, own in spec.part_rate_factors.items() if part not in prepared.info.unreached
            ),
            count_parameters=lambda allocation: prepared.info.num_trainable(
                allocation,
                spec.training.full,
                use_dora=spec.training.use_dora,
                ids=spec.training.trainable_token_indices,
            ),
            seed=spec.search.seed,
            budget=spec.search.budget,
            max_parameters=spec.search.most_parameters,
        )

    def calibrate(self) -> list[Run]:
        """Train the members that the strategy proposes, round after round; the runs, also of earlier starts.

        Every validation loss is stored as soon as it is measured. Raises `StudyError` if no pack of a round could run.
        """
        problem, strategy = self.problem, make_strategy(self.study.spec.search.strategy)
        self.study.trials.describe({FULL_EXAMPLES: problem.full_examples, TRAINING_ROWS: problem.num_train})
        for note in self.study.trials.notes:
            self.listener.note(note)
        for _ in range(MAX_ROUNDS):
            runs = self.study.finished_runs()
            members = strategy.propose(problem, runs)
            if not members or self._reaches_limit(members, runs):
                return runs
            self._note_overspending(problem, members, runs)
            packs = self._make_packs(members, runs, problem)
            number = self._write_round(packs)
            self.listener.stage(f"Calibration, round {number}: {describe_members(members)}")
            self.study.trials.start(*members)  # as proposed: the order of the runs does not depend on the packs
            train_packs(self.study, self.executor, RUN_PACK, packs, self.listener)
        raise StudyError(
            f"strategy `{self.study.spec.search.strategy.name}` still proposes runs after {MAX_ROUNDS} rounds; "
            "this is a bug in the strategy. Choose another with --strategy."
        )

    def _write_round(self, packs: Sequence[PackSpec]) -> int:
        """Write the plan of a round after those of all rounds so far, also of earlier starts; its number."""
        earlier = (path.stem.removeprefix("round-") for path in self.study.path("plan").glob("round-*.json"))
        number = 1 + max(map(int, earlier), default=0)
        self.study.write_json(f"plan/round-{number:02d}.json", [pack.model_dump(mode="json") for pack in packs], "")
        return number

    def _note_overspending(self, problem: Problem, members: Sequence[MemberSpec], runs: Sequence[Run]) -> None:
        """Note once, before the round that exceeds the budget, that it does and why that happens."""
        spent, most = problem.spent(runs), problem.budget
        total = spent + self._count_new_work(problem, members, runs) / problem.full_work
        if most is not None and spent <= BUDGET_TOLERANCE * most < total:
            self.listener.note(
                f"calibration comes to {total:.2g} full runs with this round; the budget was {most:g}. Each run has at "
                f"least {MIN_STEPS} steps, `--sweep` comes on top, and not every strategy looks at the budget."
            )

    def _count_new_work(self, problem: Problem, members: Sequence[MemberSpec], runs: Sequence[Run]) -> float:
        """What training and validating the members costs from where they stand, in training examples."""
        seen = {run.member.id: run.last_examples for run in runs}
        looks = [
            examples
            for member in members
            for examples in list_validations(
                member, self.study.spec.calibration, problem.full_examples, problem.num_validation
            )
            if examples > seen.get(member.id, 0)
        ]
        return _count_new_examples(members, runs) + VALIDATION_WORK * problem.num_validation * len(looks)

    def _reaches_limit(self, members: Sequence[MemberSpec], runs: Sequence[Run]) -> bool:
        new = _count_new_examples(members, runs)
        if reason := self.options.limit.describe_excess(sum_costs(runs), new):
            self.listener.note(reason)
        return reason is not None

    def decide(self) -> DecisionRecord:
        """Fit the laws and choose the allocation; stored as ``laws.json`` and ``decision.json``."""
        runs = self.calibrate()
        inputs = digest_texts(self.study.identity, *(run.digest() for run in runs))
        if (known := self.study.read("decision.json", DecisionRecord, inputs)) is not None:
            if not self.study.is_readable("laws.json"):
                self._write_laws(known, inputs)
            return known
        self.listener.stage("Fitting the laws")
        decision = make_strategy(self.study.spec.search.strategy).decide(self.problem, runs)
        decision = complete_summary(decision, runs, self.study.spec, self.prepare().info)
        self._write_laws(decision, inputs)
        self.study.write("decision.json", decision, inputs)
        report = str(self.study.path("report.html").resolve())
        self.study.trials.describe({"verdict": decision.summary, "chosen": str(decision.setting), "report": report})
        if self.options.report_to and runs:
            folder = self.study.folder
            names = self.options.report_to
            tracked = CalibrationRuns(trackers=names, project=folder.name, folder=str(folder), runs=tuple(runs))
            Inline().run(TRACK_CALIBRATION, [tracked], lambda _: None)
        return decision

    def _write_laws(self, decision: DecisionRecord, inputs: str) -> None:
        self.study.write_json("laws.json", [law.model_dump(mode="json") for law in decision.laws], inputs)

    def plan_final(self) -> FinalSpec:
        """The spec of the final run at the chosen ranks and learning rates, stored in ``plan/``. It continues the
        calibration run of the chosen setting if there is one and it trained the same adapter."""
        decision = self.decide()
        spec = self.study.spec
        can_continue = spec.calibration == spec.training  # a run of another adapter holds other weights
        members = (run.member for run in self.study.finished_runs() if run.member.id == decision.continue_run)
        return self._plan_full_run("final", decision.setting, next(members, None) if can_continue else None)

    def train(self) -> FinalResult:
        """The result of the final run, whose adapter is in ``final/``; stored as ``final.json``.

        What the search had predicted of it is compared with what came out in ``promise.json``.
        """
        spec = self.plan_final()
        decision = self.decide()
        result = self._train_full_run("final", decision.setting, spec)
        if (promise := check_promise(decision, result)) is not None:
            self.study.write("promise.json", promise, digest_texts(decision.digest(), result.digest()))
        return result

    def train_uniform(self) -> FinalResult | None:
        """The result of a full run of the baseline, `find_baseline`: one rank for every part.

        None if that is the chosen setting: there is nothing else to train.
        """
        decision = self.decide()
        baseline = find_baseline(self.problem, decision)
        if baseline is None:
            self.listener.note(f"The choice is the usual setting ({decision.chosen}): no other baseline is trained.")
            return None
        return self._train_full_run("uniform", baseline, self._plan_full_run("uniform", baseline))

    def export(self) -> list[Path]:
        """Write the decision as settings of every tool that has an exporter, in ``exports/``; the files."""
        self.decide()
        return export_decision(self.study)

    def _plan_full_run(self, name: str, setting: Setting, started: MemberSpec | None = None) -> FinalSpec:
        spec, info, allocation = self.study.spec, self.prepare().info, setting.allocation
        planned = FinalSpec(
            model=spec.model,
            data=spec.data,
            training=setting.apply_to(spec.training),
            allocation=allocation,
            module_ranks=info.module_ranks(allocation),
            full_modules=info.full_modules(spec.training.full),
            stacked=info.stacked(allocation),
            token_indices=info.token_indices(spec.training.trainable_token_indices),
            full_examples=self.problem.full_examples,
            start_folder=self._find_checkpoint(started),
            output_folder=str(self.study.path(name)),
            cache_folder=str(self.study.path("cache")),
            seed=started.seed if started else spec.search.seed,
            order_seed=started.order_seed if started else spec.search.seed,
            report_to=self.options.report_to,
            metric=self.options.metric,
        )
        self.study.write(f"plan/{name}.json", planned, planned.digest())
        return planned

    def _find_checkpoint(self, member: MemberSpec | None) -> str | None:
        """The folder from which the run goes on; None if another study folder with the same storage trained it."""
        folder = self.study.path("members", member.id) if member else None
        return str(folder) if folder and (folder / STATE_FILE).exists() else None

    def _train_full_run(self, name: str, setting: Setting, spec: FinalSpec) -> FinalResult:
        inputs = spec.inputs_digest()
        known = self.study.read(f"{name}.json", FinalResult, inputs)
        if known is not None and self.study.has_whole_adapter(name):
            return known.model_copy(update={"id": spec.id, "adapter_folder": str(Path(spec.output_folder, "adapter"))})
        self.listener.stage(f"Training the {FULL_RUNS[name]} ({setting})")
        result = self.executor.ask(RUN_FINAL, spec, FinalResult, self.listener.advance)
        self.study.write(f"{name}.json", result, inputs)
        self.study.trials.add_full_run(FULL_RUNS[name], setting, result)
        return result

    def _make_packs(self, members: Sequence[MemberSpec], runs: Sequence[Run], problem: Problem) -> list[PackSpec]:
        spec = self.study.spec
        return [
            PackSpec(
                id=digest_texts(*(f"{member.id}@{member.until_examples}" for member in group)),
                model=spec.model,
                data=spec.data,
                training=spec.calibration,
                full_examples=problem.full_examples,
                members=group,
                checkpoint_folder=str(self.study.path("members")),
                cache_folder=str(self.study.path("cache")),
            )
            for group in split_groups(group_members(members, runs), self.executor.num_workers)
        ]


def _count_new_examples(members: Sequence[MemberSpec], runs: Sequence[Run]) -> int:
    seen = {run.member.id: run.last_examples for run in runs}
    return sum(member.until_examples - seen.get(member.id, 0) for member in members)
