"""The final run from spec to adapter: load, adapt, train with Trainer, measure, save. Started again, it goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from transformers import PrinterCallback, TrainingArguments

from marslora.core.errors import ConfigError
from marslora.core.runs import GRADIENTS, Cost, CountResult, Emit, Event, FinalResult
from marslora.core.schedule import final_evaluation_steps, num_steps
from marslora.core.spec import FinalSpec
from marslora.data.rows import BatchSource, EncodedSplits, load_encoded_splits
from marslora.finetune import checkpoints, output
from marslora.finetune.best_point import BestPoint
from marslora.finetune.callbacks import StopWhenAsked, ValidationCallback, listen_for_signals
from marslora.finetune.checkpoints import FinalRunState
from marslora.finetune.cost import SetupCost, count_setup_cost, forget_peak, peak_bytes
from marslora.finetune.exact_trainer import ExactFinalTrainer
from marslora.finetune.labels import label_rows
from marslora.finetune.loss import AnswerLoss
from marslora.finetune.method_steps import MethodSteps
from marslora.finetune.model import adapt_model, build_optimizer, method_of, part_of_linears
from marslora.finetune.objectives import GroupingCollate, Objectives, group_rows
from marslora.finetune.sampler import BlankingCollate, check_divisible, micro_batches
from marslora.finetune.schedule import wsd_scheduler
from marslora.finetune.scorer import Scorer
from marslora.finetune.separate_trainer import SeparateTrainer
from marslora.finetune.start import StartingPoint, load_moments, load_weights, read_starting_point
from marslora.finetune.trackers import check_trackers
from marslora.finetune.trainer import FinalTrainer, launched_processes, local_model, training_arguments
from marslora.methods import AbstractChange
from marslora.models.loading import LoadedModel, load
from marslora.optim import AbstractOptimizer, as_two_point


def run_final(spec: FinalSpec, emit: Emit) -> None:
    """Train the adapter of ``spec`` and emit its observations (member ``final``) and at last its `FinalResult`.

    Leaves ``adapter/`` (a plain PEFT folder, or what the adapter's kind says) and ``final.json`` in ``output_folder``;
    where a final.json of the same spec is there already, that is emitted at once. Interrupted runs go on from their
    last whole checkpoint; what was measured after it is then emitted a second time. Under torchrun only the first
    process writes and emits.

    Raises `KeyboardInterrupt` after a checkpoint when asked to stop, `TrainingError` where the loss becomes no number,
    and what loading models and data raises.
    """
    if (known := output.read_result(spec)) is not None:
        emit(known)
        return
    with _start_run(spec, emit) as run:
        run.run()


def count_final_flops(spec: FinalSpec, emit: Emit) -> None:
    """Emit what ``spec`` would train and what a row of it costs, as a `CountResult`; nothing is trained."""
    with _start_run(spec, emit) as run:
        trainable = (run.change.num_trainable(),)
        emit(CountResult(num_trainable=trainable, flops_per_row=run.flops.trained, flops_before=run.setup.flops))


@contextlib.contextmanager
def _start_run(spec: FinalSpec, emit: Emit) -> Iterator[_FinalRun]:
    """The run of ``spec`` before its first step; afterwards the model is what it was."""
    forget_peak()
    method = method_of(spec.training)
    start = read_starting_point(Path(spec.start_folder) if spec.start_folder else None)
    check_trackers(spec.report_to)
    num_processes = launched_processes()[1]
    check_divisible(spec.training.batch_size, spec.training.accumulation, num_processes)
    loaded = load(local_model(spec.model))
    part_of = part_of_linears(loaded, spec)
    arguments = training_arguments(spec, loaded, _total_steps(spec) - start.step, num_processes)
    if arguments.process_index == 0:
        output.claim_folder(spec)
    with arguments.main_process_first(desc="preparing rows"):
        encoded = load_encoded_splits(spec.data, loaded.processor, spec.cache_folder)
        rows = encoded if method is None else label_rows(encoded, spec.data, method)
    with contextlib.ExitStack() as stack:
        with count_setup_cost() as setup:
            change = stack.enter_context(adapt_model(loaded, spec, method, rows, part_of))
        optimizer = build_optimizer(change, part_of, spec)
        yield _FinalRun(spec, start, arguments, loaded, rows, change, optimizer, setup, emit)


class _FinalRun:
    """One start of a final run: what it works on, and its steps in order."""

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
        self.spec, self.start, self.rows, self.change, self.optimizer = spec, start, rows, change, optimizer
        self.is_first = arguments.process_index == 0
        self.emit: Emit = emit if self.is_first else _ignore
        self.answers = AnswerLoss(loaded.model)
        self.scorer = Scorer(change, self.answers, rows, spec.training, loaded.dtype)
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
        """Train (or go on), measure, save, emit the result."""
        if self.spec.start_folder is not None:
            folder = Path(self.spec.start_folder)
            load_weights(self.change, folder)
            load_moments(self.optimizer, self.change, folder, self.start.step)
        found = checkpoints.newest(self.checkpoints, self.spec.inputs_digest())
        watch = self._watch(found[1] if found else self._measure_base())
        if not found:
            watch.first_point(self.start.examples)
        elif self.best is not None:
            self.best.load(found[0])
        self._train(watch, found[0] if found else None)
        result = self._result(watch, self._keep(watch.progress))
        if self.is_first:
            output.save(self.spec, self.change, result)
        self.emit(result)

    def _trainer(self, arguments: TrainingArguments) -> FinalTrainer:
        spec, training = self.spec, self.spec.training
        steps = self.rows.steps(training.batch_size, spec.order_seed, self.start.examples, spec.full_examples)
        collate = BlankingCollate(self.rows.train.batch)
        common = {
            "change": self.change,
            "args": arguments,
            "answers": self.answers,
            "optimizers": (
                self.optimizer,
                wsd_scheduler(self.optimizer, training, _total_steps(spec), self.start.step),
            ),
            "micro_batches": micro_batches(steps, training.accumulation, arguments.process_index, arguments.world_size),
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
        )

    def _watch(self, progress: FinalRunState) -> ValidationCallback:
        spec, start = self.spec, self.start
        steps = final_evaluation_steps(_total_steps(spec), spec.training.evaluations)
        return ValidationCallback(
            progress,
            emit=self.emit,
            log=self.trainer.log,
            validate=lambda: self.scorer.score("validation"),
            validate_after=frozenset(step - start.step for step in steps),
            examples_at=lambda step: min(start.examples + step * spec.training.batch_size, spec.full_examples),
            best=self.best,
        )

    def _train(self, watch: ValidationCallback, checkpoint: Path | None) -> None:
        if self.trainer.args.max_steps <= 0:
            return
        stop = StopWhenAsked()
        self.trainer.add_callback(watch)
        self.trainer.add_callback(stop)
        with listen_for_signals(stop):
            self.trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if stop.asked:
            raise KeyboardInterrupt(f"stopped; its checkpoint is in {self.checkpoints}: run again to go on")

    def _keep(self, progress: FinalRunState) -> int | None:
        """Go back to the best point, if that is not the end; its examples."""
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
            adapter_folder=str(output.adapter_folder(self.spec)),
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
            cost=self._cost(watch.seconds),
        )

    def _cost(self, seconds: float) -> Cost:
        examples = self.spec.full_examples - self.start.examples
        return Cost(
            seconds=self.setup.seconds + seconds,
            examples=examples,
            flops=self.setup.flops + examples * self.flops.trained + self.scorer.num_scored * self.flops.scored,
            peak_bytes=peak_bytes(),
        )


def _check_exact_steps(spec: FinalSpec, change: AbstractChange, optimizer: AbstractOptimizer) -> None:
    """`ConfigError` where exact steps meet a run whose gradient is no gradient of one function of the parameters."""
    if as_two_point(optimizer) is None:
        return
    found = f"{len(spec.training.objectives)} objectives" if spec.training.objectives else ""
    if type(change).before_step is not AbstractChange.before_step:
        found = f"the adapter `{spec.training.adapter.name}`, which moves parameters beside the optimizer"
    if found:
        raise ConfigError(
            f"The optimizer `{spec.training.optimizer.name}` takes exact steps, which cannot be combined with {found}. "
            "Set its option `exact` to false."
        )


def _total_steps(spec: FinalSpec) -> int:
    return num_steps(spec.full_examples, spec.training.batch_size)


def _ignore(_: Event) -> None:
    """Nothing leaves a process that is not the first."""
