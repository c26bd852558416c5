"""The final run from spec to adapter: load, adapt, train with Trainer, measure, save. Run again, it continues."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from transformers import PrinterCallback, TrainingArguments

from marslora.core.errors import ConfigError
from marslora.core.out_of_memory import explain_out_of_memory
from marslora.core.runs import GRADIENTS, Cost, CountResult, Emit, Event, FinalResult
from marslora.core.schedule import final_evaluation_steps, num_steps
from marslora.core.spec import FinalSpec
from marslora.core.stopping import Stop, defer_signals
from marslora.data.rows import BatchSource, EncodedSplits, load_encoded_splits
from marslora.data.splits import load_splits
from marslora.finetune import checkpoints, output
from marslora.finetune.best_point import BestPoint
from marslora.finetune.callbacks import StopWhenAsked, ValidationCallback
from marslora.finetune.checkpoints import FinalRunState
from marslora.finetune.cost import SetupCost, count_setup_cost, read_peak_bytes, reset_peak_bytes
from marslora.finetune.exact_trainer import ExactFinalTrainer
from marslora.finetune.generated_answers import AnswerMetric, report_metric
from marslora.finetune.labels import label_rows
from marslora.finetune.launch import check_launch
from marslora.finetune.loss import AnswerLoss
from marslora.finetune.method_steps import MethodSteps
from marslora.finetune.micro_batches import split_for_memory
from marslora.finetune.model import adapt_model, build_optimizer, find_method, map_linears_to_parts
from marslora.finetune.objectives import GroupingCollate, Objectives, group_rows
from marslora.finetune.sampler import BlankingCollate, check_divisible, plan_micro_batches
from marslora.finetune.schedule import make_wsd_scheduler
from marslora.finetune.scorer import Scorer
from marslora.finetune.separate_trainer import SeparateTrainer
from marslora.finetune.start import StartingPoint, load_moments, load_weights, read_starting_point
from marslora.finetune.trackers import check_trackers
from marslora.finetune.trainer import FinalTrainer, make_training_arguments, place_model, read_launched_processes
from marslora.methods import AbstractChange
from marslora.metrics import LOSS, find_metric
from marslora.models.loading import LoadedModel, load
from marslora.optim import AbstractOptimizer, as_two_point


def run_final(spec: FinalSpec, emit: Emit) -> None:
    """Train the adapter of ``spec``; emit its progress and, at the end, its `FinalResult`.

    Writes ``adapter/`` (a PEFT folder, or the adapter's own form) and ``final.json`` into ``output_folder``. If there
    is already a final.json of the same spec, its result is emitted at once. An interrupted run continues from its last
    complete checkpoint. Under torchrun only the first process writes and emits.

    Raises `KeyboardInterrupt` or `Terminated` after a signal, once a checkpoint is written, `TrainingError` if the loss
    is not finite, `OutOfMemoryError`, and what loading the model and the data raises.
    """
    if (known := output.read_result(spec)) is not None:
        emit(known)
        return
    with explain_out_of_memory("the final run was trained", spec.training), _start_run(spec, emit) as run:
        run.run()


def count_final_flops(spec: FinalSpec, emit: Emit) -> None:
    """Emit as a `CountResult` what ``spec`` would train and what a row of it would cost; nothing is trained."""
    with _start_run(spec, emit) as run:
        trainable = (run.change.num_trainable(),)
        emit(CountResult(num_trainable=trainable, flops_per_row=run.flops.trained, flops_before=run.setup.flops))


@contextlib.contextmanager
def _start_run(spec: FinalSpec, emit: Emit) -> Iterator[_FinalRun]:
    """Within it, the run of ``spec`` is ready for its first step; afterwards the model is as before."""
    reset_peak_bytes()
    method = find_method(spec.training)
    start = read_starting_point(Path(spec.start_folder) if spec.start_folder else None)
    check_trackers(spec.report_to)
    check_launch(spec.model)
    num_processes = read_launched_processes()[1]
    check_divisible(spec.training.batch_size, spec.training.accumulation, num_processes)
    loaded = load(place_model(spec.model))
    part_of = map_linears_to_parts(loaded, spec)
    arguments = make_training_arguments(spec, loaded, _count_steps(spec) - start.step, num_processes)
    if arguments.process_index == 0:
        output.claim_folder(spec)
    with arguments.main_process_first(desc="preparing rows"):
        encoded = load_encoded_splits(spec.data, loaded.processor, spec.cache_folder)
        rows = encoded if method is None else label_rows(encoded, spec.data, method)
    with contextlib.ExitStack() as stack:
        with count_setup_cost() as setup:
            change = stack.enter_context(adapt_model(loaded, spec, method, rows, part_of))
        optimizer = build_optimizer(change, part_of, spec)
        spec = split_for_memory(spec, arguments, loaded, rows, change, optimizer)
        yield _FinalRun(spec, start, arguments, loaded, rows, change, optimizer, setup, emit)


class _FinalRun:
    """A final run from one start to its end or interruption."""

    def __init__(
        self,
        spec: FinalSpec,
        start: StartingPoint,
        arguments: TrainingArguments,
        loaded: LoadedModel,
        rows: EncodedSplits[BatchSource],
        change: AbstractChange,
        optimizer: AbstractOptimizer,
        setup: SetupCost,
        emit: Emit,
    ):
        self.setup = setup
        self.stop = Stop()
        self.spec, self.start, self.rows, self.change, self.optimizer = spec, start, rows, change, optimizer
        self.is_first = arguments.process_index == 0
        self.emit: Emit = emit if self.is_first else _emit_nothing
        self.answers = AnswerLoss(loaded.model)
        self.scorer = Scorer(
            change, self.answers, rows, spec.training, loaded.dtype, _make_metric(spec, loaded, change, rows)
        )
        _check_exact_steps(spec, change, optimizer)
        self.trainer = self._trainer(arguments)
        self.flops = self.scorer.flops_per_row(
            lambda batch: self.trainer.compute_loss(change.model, batch),
            self.trainer.num_backwards,
            self.trainer.num_passes,
        )
        self.checkpoints = Path(arguments.output_dir)
        self.best = BestPoint(change) if spec.training.keep == "best" else None

    def run(self) -> None:
        """Train, or continue training; then measure, save, and emit the result."""
        if self.spec.start_folder is not None:
            folder = Path(self.spec.start_folder)
            load_weights(self.change, folder)
            load_moments(self.optimizer, self.change, folder, self.start.step)
        resumed = checkpoints.find_newest(self.checkpoints, self.spec.inputs_digest())
        watch = self._watch(resumed[1] if resumed else self._measure_base())
        if not resumed:
            watch.first_point(self.start.examples)
        elif self.best is not None:
            self.best.load(resumed[0])
        self._train(watch, resumed[0] if resumed else None)
        result = self._result(watch, self._keep(watch.progress))
        if self.is_first:
            output.save_result(self.spec, self.change, result)
        self.emit(result)
        self.stop.raise_if_asked()

    def _trainer(self, arguments: TrainingArguments) -> FinalTrainer:
        spec, training = self.spec, self.spec.training
        steps = self.rows.steps(training, spec.order_seed, self.start.examples, spec.full_examples)
        collate = BlankingCollate(self.rows.train.batch)
        common = {
            "change": self.change,
            "args": arguments,
            "answers": self.answers,
            "optimizers": (
                self.optimizer,
                make_wsd_scheduler(self.optimizer, training, _count_steps(spec), self.start.step),
            ),
            "micro_batches": plan_micro_batches(
                steps, training.accumulation, arguments.process_index, arguments.world_size
            ),
        }
        if training.objectives:
            objectives = Objectives(training.objectives)
            groups = group_rows(objectives, self.rows.train, spec.data)
            trainer: FinalTrainer = SeparateTrainer(
                **common,
                collate=GroupingCollate(collate, groups),
                objectives=objectives,
                gradients=training.gradients,
                log_file=Path(spec.output_folder) / GRADIENTS,
            )
        else:
            kind = FinalTrainer if as_two_point(self.optimizer) is None else ExactFinalTrainer
            trainer = kind(**common, collate=collate)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(MethodSteps(self.change, self.optimizer, self.start.step, trainer.num_passes))
        return trainer

    def _measure_base(self) -> FinalRunState:
        base = self.scorer.base_score("validation")
        return FinalRunState(
            spec_digest=self.spec.inputs_digest(),
            started_at_examples=self.start.examples,
            base_validation_loss=base.loss,
            base_validation_accuracy=base.accuracy,
            base_validation_metric=base.metric,
        )

    def _watch(self, progress: FinalRunState) -> ValidationCallback:
        spec, start = self.spec, self.start
        steps = final_evaluation_steps(_count_steps(spec), spec.training.evaluations)
        return ValidationCallback(
            progress,
            emit=self.emit,
            log=self.trainer.log,
            validate=lambda: self.scorer.score("validation"),
            validate_after=frozenset(step - start.step for step in steps),
            examples_at=lambda step: min(start.examples + step * spec.training.batch_size, spec.full_examples),
            best=self.best,
            patience=spec.training.patience,
        )

    def _train(self, watch: ValidationCallback, checkpoint: Path | None) -> None:
        if self.trainer.args.max_steps <= 0 or watch.is_over:
            return
        with defer_signals() as stop:
            callback = StopWhenAsked(stop)
            self.trainer.add_callback(watch)
            self.trainer.add_callback(callback)
            self.trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if callback.has_stopped:
            message = f"stopped with a checkpoint in {self.checkpoints}; run the command again to continue"
            stop.raise_if_asked(message)
            raise KeyboardInterrupt(message)  # another process was asked
        self.stop = stop  # a signal after the last step waits until the result is saved

    def _keep(self, progress: FinalRunState) -> int | None:
        """Restore the best point unless it is the last one; return its examples, or None for the end of the run."""
        if self.best is None or not self.best.state or progress.best in (None, len(progress.examples) - 1):
            return None
        self.best.restore()
        return progress.examples[progress.best]

    def _result(self, watch: ValidationCallback, kept_examples: int | None) -> FinalResult:
        progress, scorer = watch.progress, self.scorer
        validation = scorer.score("validation")
        test = scorer.score("test") if len(self.rows.test) else None
        base_test = scorer.base_score("test") if len(self.rows.test) else None
        return FinalResult(
            id=self.spec.id,
            allocation=self.spec.allocation,
            adapter_folder=str(output.get_adapter_folder(self.spec)),
            num_trainable=self.change.num_trainable(),
            base_validation_loss=progress.base_validation_loss,
            base_validation_accuracy=progress.base_validation_accuracy,
            validation_loss=validation.loss,
            validation_accuracy=validation.accuracy,
            test_loss=test and test.loss,
            test_accuracy=test and test.accuracy,
            base_test_loss=base_test and base_test.loss,
            base_test_accuracy=base_test and base_test.accuracy,
            examples=progress.examples,
            validation_curve=progress.validation_curve,
            train_examples=progress.train_examples,
            train_curve=progress.train_curve,
            kept_examples=kept_examples,
            started_at_examples=progress.started_at_examples,
            metric=scorer.metric and report_metric(scorer.metric, progress, validation, test, base_test),
            cost=self._cost(watch),
        )

    def _cost(self, watch: ValidationCallback) -> Cost:
        """What this run cost since the calibration run that it continues."""
        num_validations = sum(seen > self.start.examples for seen in watch.progress.examples)
        end = watch.progress.examples[-1] if watch.is_over else self.spec.full_examples
        examples = end - self.start.examples
        return Cost(
            seconds=self.setup.seconds + watch.seconds,
            examples=examples,
            validation_examples=len(self.rows.validation) * num_validations,
            flops=self.setup.flops
            + examples * self.flops.trained
            + self.scorer.num_scored * self.flops.scored
            + self.scorer.count_generation_flops(),
            peak_bytes=read_peak_bytes(),
        )


def _make_metric(
    spec: FinalSpec, loaded: LoadedModel, change: AbstractChange, rows: EncodedSplits[BatchSource]
) -> AnswerMetric | None:
    """The metric that chooses the point of the run; None if the loss does."""
    if spec.metric == LOSS:
        return None
    batch_size = max(1, spec.training.batch_size // spec.training.accumulation)
    metric = find_metric(spec.metric)
    examples = load_splits(spec.data)
    return AnswerMetric(spec.metric, metric, change, rows, examples, loaded.processor, batch_size, loaded.dtype)


def _check_exact_steps(spec: FinalSpec, change: AbstractChange, optimizer: AbstractOptimizer) -> None:
    """Raise `ConfigError` for exact steps in a run whose gradient is not that of one function of the parameters."""
    if as_two_point(optimizer) is None:
        return
    conflict = f"{len(spec.training.objectives)} objectives" if spec.training.objectives else ""
    if type(change).before_step is not AbstractChange.before_step:
        conflict = f"the adapter `{spec.training.adapter.name}`, which itself moves parameters"
    if conflict:
        name = spec.training.optimizer.name
        raise ConfigError(
            f"The optimizer `{name}` takes exact steps, which cannot be combined with {conflict}. Set its option "
            "`exact` to false."
        )


def _count_steps(spec: FinalSpec) -> int:
    return num_steps(spec.full_examples, spec.training.batch_size)


def _emit_nothing(_: Event) -> None:
    """Emit nothing: only the first process reports."""
