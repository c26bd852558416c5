"""Trainer callbacks between optimizer steps: validation, progress events, complete checkpoints, a clean stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from marslora.core.runs import Emit, ProgressEvent
from marslora.core.stopping import Stop
from marslora.finetune.best_point import BestPoint
from marslora.finetune.checkpoints import FinalRunState, mark_complete
from marslora.finetune.evaluate import SplitScore, get_rank_and_size

TASK = "final"
"""How progress events name the final run."""


class ValidationCallback(TrainerCallback):  # type: ignore[misc]
    """Validates after given steps, emits progress, and writes the run's state into each checkpoint.

    Args:
        progress: The state that the run continues from.
        emit: Gets a `ProgressEvent` after every step.
        log: Trainer's ``log``, which passes metrics to the trackers.
        validate: Scores the model on the validation rows.
        validate_after: The optimizer steps of this start after which to validate.
        examples_at: Converts optimizer steps of this start to examples seen.
        best: Keeps the state of the best point; None if the end of the run is kept.
        patience: Ends the run after so many validations without a new best point; None: never.
    """

    def __init__(
        self,
        progress: FinalRunState,
        *,
        emit: Emit,
        log: Callable[[dict[str, float]], None],
        validate: Callable[[], SplitScore],
        validate_after: frozenset[int],
        examples_at: Callable[[int], int],
        best: BestPoint | None,
        patience: int | None = None,
    ):
        self.patience = patience
        self.progress = progress
        self.best = best
        self.emit = emit
        self.log = log
        self.validate = validate
        self.validate_after = validate_after
        self.examples_at = examples_at
        self.before = progress.seconds
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time of the run in seconds, earlier starts included."""
        return self.before + time.monotonic() - self.began

    @property
    def is_over(self) -> bool:
        """Whether as many validations as patience allows brought no new best point."""
        since_best = len(self.progress.examples) - 1 - (self.progress.best or 0)
        return self.patience is not None and since_best >= self.patience

    def first_point(self, examples: int) -> None:
        """Record the point before the first step; for a fresh adapter (0 examples) that is the base model's score."""
        if examples:
            self.measure(examples)
        else:
            base = self.progress
            score = SplitScore(base.base_validation_loss, base.base_validation_accuracy, base.base_validation_metric)
            self._record(0, score)

    def measure(self, examples: int) -> SplitScore:
        """Validate now, record the point and return its score."""
        return self._record(examples, self.validate())

    def _record(self, examples: int, score: SplitScore) -> SplitScore:
        self.progress = self.progress.add_validation(examples, score.loss, score.metric)
        if self.best is not None and self.progress.best == len(self.progress.examples) - 1:
            self.best.take()
        return score

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Validate if a validation is due, and emit progress with the latest losses."""
        step, examples = state.global_step, self.examples_at(state.global_step)
        if step in self.validate_after:
            score, is_log_due = self.measure(examples), control.should_log
            metric = {} if score.metric is None else {"eval_metric": score.metric}
            self.log({"eval_loss": score.loss, "eval_accuracy": score.accuracy, **metric})
            control.should_log = is_log_due  # any call of `log` makes Trainer skip the one that is due
            control.should_training_stop |= self.is_over
        total, detail = self.examples_at(state.max_steps), self.progress.describe_losses()
        self.emit(ProgressEvent(task=TASK, done=examples, total=total, detail=detail))

    def on_log(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Record the training loss that Trainer logs."""
        if logs and "loss" in logs:
            self.progress = self.progress.add_training(self.examples_at(state.global_step), logs["loss"])

    def on_save(self, args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Mark the checkpoint as complete once every process has written its share."""
        if get_rank_and_size()[1] > 1:
            distributed.barrier()
        if state.is_world_process_zero:
            progress = self.progress.model_copy(update={"seconds": self.seconds})
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if self.best is not None:
                self.best.save(checkpoint)
            mark_complete(checkpoint, progress)


class StopWhenAsked(TrainerCallback):  # type: ignore[misc]
    """Ends training with a checkpoint after the first step that ends after a signal; all processes at the same step."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self.has_stopped = False

    def on_step_end(self, args: TrainingArguments, _state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save and stop if any process was asked to."""
        if self._any_asked(args.device):
            self.has_stopped = control.should_save = control.should_training_stop = True

    def _any_asked(self, device: torch.device) -> bool:
        if get_rank_and_size()[1] == 1:
            return bool(self.stop)
        flag = torch.tensor(float(bool(self.stop)), device=device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag.item())
