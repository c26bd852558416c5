"""Gather from a study folder the plain records that a report is made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from marslora.core.allocation import Allocation, Space
from marslora.core.decision import Candidate, DecisionRecord, LawFit
from marslora.core.errors import StudyError
from marslora.core.parts import ModelInfo
from marslora.core.runs import GRADIENTS, BlockGradient, Cost, DataSummary, FinalResult, Prepared, Run
from marslora.core.schedule import final_evaluation_steps, full_examples, num_steps
from marslora.core.spec import VALIDATION_WORK, FinalSpec, StudySpec
from marslora.store.study import Study

CONVERGENCE = "convergence"
"""The name of Law-C, whose points hold convergence times."""
PERFORMANCE = "performance"
"""The name of Law-P, whose points hold losses."""
SNIPPET = ("exports", "peft", "lora_config.py")
"""The export that the page shows as code, below the study folder."""
Points = Sequence[tuple[int, float]]
"""(examples seen, value) of one series of a run."""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """The results of one study with a decision, with or without a final run."""

    spec: StudySpec
    info: ModelInfo
    decision: DecisionRecord
    runs: Sequence[Run] = ()
    train_losses: Mapping[str, Points] = field(default_factory=dict)
    """The training loss of each run, by member: mean over the steps since the point before."""
    accuracies: Mapping[str, Points] = field(default_factory=dict)
    """The share of validation answer tokens that each run predicted correctly, by member."""
    final: FinalResult | None = None
    """The final run of the choice; None if it has not been made."""
    uniform: FinalResult | None = None
    """The same run at one rank for every part; None if it was not asked for."""
    uniform_rate: float | None = None
    """The learning rate of that run; None if it is that of the choice."""
    full_examples: int
    """Examples seen by one full run."""
    gradients: Sequence[BlockGradient] = ()
    """What the final run saw of its objectives' gradients; empty if it had one objective."""
    summary: DataSummary | None = None
    preparation: Cost = field(default_factory=Cost)
    """The cost of reading, encoding and probing, before anything was trained."""
    device: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    snippet: str = ""
    """The chosen ranks as a `LoraConfig` in Python."""

    @property
    def chosen(self) -> Candidate:
        """The candidate that was picked."""
        return self.decision.chosen_candidate

    @property
    def space(self) -> Space:
        """What was searched: the parts that no gradient reaches have rank 0 alone."""
        return self.info.leave_unreached(self.spec.space)

    @property
    def searched(self) -> tuple[str, ...]:
        """The parts whose rank was searched; every part that may be trained if none was."""
        space = self.space
        return space.searched or tuple(part for part, ladder in space.ladders if any(ladder)) or space.parts

    @property
    def unreached(self) -> str:
        """A sentence about the parts that would have been trained but that no gradient reaches; empty if none."""
        return self.info.describe_unreached(self.spec.trained_parts)

    @property
    def searches_rates(self) -> bool:
        """Whether the candidates differ in their learning rates."""
        candidates = self.decision.candidates
        return len({(each.learning_rate, tuple(each.part_learning_rates.items())) for each in candidates}) > 1

    @property
    def candidate_noun(self) -> str:
        """What a candidate is called: a setting has learning rates of its own, an allocation has ranks alone."""
        return "setting" if self.searches_rates else "allocation"

    @property
    def num_candidates(self) -> int:
        """The number of candidates that could be chosen, which an exhaustive grid would all train."""
        return len(self.decision.candidates)

    @property
    def base_loss(self) -> float | None:
        """Validation loss of the model before training; None if it was not measured."""
        if self.final is not None:
            return self.final.base_validation_loss
        return next((run.validation_loss[0] for run in self.runs if run.examples[:1] == (0,)), None)

    @property
    def full_work(self) -> float:
        """What a full run costs with its own validations, in training examples."""
        num_rows = 0 if self.summary is None else self.summary.num_validation
        training = self.spec.training
        looks = final_evaluation_steps(num_steps(self.full_examples, training.batch_size), training.evaluations)
        return self.full_examples + VALIDATION_WORK * num_rows * len(looks)

    def count_full_runs(self, cost: Cost) -> float:
        """A cost in full runs: its training and validation, in units of those of a full run."""
        return cost.work / self.full_work

    def num_trainable(self, allocation: Allocation) -> int:
        """Trainable parameters of an allocation, parts that are trained whole included."""
        training = self.spec.training
        return self.info.num_trainable(
            allocation, training.full, use_dora=training.use_dora, ids=training.trainable_token_indices
        )

    def convergence_law(self, part: str) -> LawFit | None:
        """The law of the convergence time of ``part``; None if there is none."""
        laws = (law for law in self.decision.laws if law.law == CONVERGENCE and law.subject == part)
        return next(laws, None)


@dataclass(frozen=True)
class Spending:
    """What something cost, in full runs and in seconds; seconds are None if it was not timed."""

    runs: float
    seconds: float | None


def compute_calibration_spending(data: ReportData) -> Spending:
    """The spending on runs before the decision."""
    runs, seconds = data.decision.calibration_full_runs, data.decision.calibration.seconds
    return Spending(runs, None if runs > 0 and not seconds else seconds)


def compute_final_spending(data: ReportData) -> Spending:
    """The spending on the final run: a full run without what a calibration run had trained of it."""
    if data.final is None:
        return Spending(1.0, estimate_full_run_seconds(data))
    return Spending(1 - data.final.started_at_examples / data.full_work, data.final.cost.seconds or None)


def compute_total_spending(data: ReportData) -> Spending:
    """The spending on calibration and the final run together."""
    first, last = compute_calibration_spending(data), compute_final_spending(data)
    seconds = None if first.seconds is None or last.seconds is None else first.seconds + last.seconds
    return Spending(first.runs + last.runs, seconds)


def compute_grid_spending(data: ReportData) -> Spending:
    """The spending that training every candidate once to the end would take; its seconds are an estimate."""
    seconds = estimate_full_run_seconds(data)
    number = data.num_candidates
    return Spending(float(number), None if seconds is None else number * seconds)


def estimate_full_run_seconds(data: ReportData) -> float | None:
    """Estimate the seconds of a full run from the final run's pace, else from calibration's; None if neither is timed.

    Calibration trains in packs, so its pace gives too few seconds.
    """
    for cost in (data.final.cost if data.final else Cost(), data.decision.calibration):
        if cost.seconds > 0 and cost.examples > 0:
            return cost.seconds * data.full_examples / cost.examples
    return None


def gather_data(study: Study, runs: Sequence[Run] | None = None) -> ReportData:
    """The report's records from a study folder; ``runs`` are read from its storage if they are not given.

    Raises `StudyError` if the study has no decision yet.
    """
    prepared = study.read("prepared.json", Prepared)
    decision = study.read("decision.json", DecisionRecord)
    if prepared is None or decision is None:
        raise StudyError(
            f"{study.folder} has no decision to report yet: its calibration is unfinished. Run the search again with "
            "the same arguments; it continues where it stopped."
        )
    snippet = study.path(*SNIPPET)
    runs = study.runs() if runs is None else runs
    return ReportData(
        spec=study.spec,
        info=prepared.info,
        decision=decision,
        runs=runs,
        train_losses=study.trials.series("train_loss"),
        accuracies=study.trials.series("validation_accuracy"),
        final=study.read_full_run("final"),
        uniform=study.read_full_run("uniform"),
        uniform_rate=_read_uniform_rate(study, decision),
        full_examples=full_examples(study.spec.training, prepared.data.num_train),
        gradients=_read_gradients(study),
        summary=prepared.data,
        preparation=prepared.cost,
        device=prepared.device,
        versions=prepared.versions,
        snippet=snippet.read_text() if snippet.exists() else "",
    )


def _read_uniform_rate(study: Study, decision: DecisionRecord) -> float | None:
    plan = study.read("plan/uniform.json", FinalSpec)
    if plan is None or plan.training.learning_rate == decision.learning_rate:
        return None
    return plan.training.learning_rate


def _read_gradients(study: Study) -> tuple[BlockGradient, ...]:
    path = study.path("final", GRADIENTS)
    if not study.spec.training.objectives or not path.exists():
        return ()
    return tuple(BlockGradient.parse(json.loads(line), GRADIENTS) for line in path.read_text().splitlines())
