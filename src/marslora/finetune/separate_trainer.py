"""The final run's Trainer for several objectives, whose gradients are combined once per optimizer step."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from marslora.core.files import write_text
from marslora.core.spec import PluginSpec
from marslora.finetune.gradient_log import GradientLog
from marslora.finetune.objectives import GROUPS, Objectives
from marslora.finetune.trainer import FinalTrainer
from marslora.gradients import SeparateGradients, refuse_reentrant

STATE = "gradients.json"
"""The file of a Trainer checkpoint that holds the combiner's state."""


class SeparateTrainer(FinalTrainer):
    """Trains on the combined gradient, which Trainer clips and uses like the gradient of a single loss."""

    def __init__(self, *args: Any, objectives: Objectives, gradients: PluginSpec, log_file: Path, **kwargs: Any):
        super().__init__(*args, **kwargs)
        refuse_reentrant(self.model)
        self.objectives = objectives
        self.num_backwards = len(objectives.specs)
        self.separate = SeparateGradients(self.model.named_parameters(), gradients, objectives.names)
        self.gradient_log = GradientLog(log_file, self.args.process_index == 0)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Run forward once and backward once per objective; combine the gradients after the step's last micro-batch.

        The combination is not a linear function of the processes' gradients, so DistributedDataParallel must not
        average them: every objective's gradient is averaged before the combination.
        """
        no_sync = model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext()
        with no_sync:
            with self.compute_loss_context_manager():
                losses = self._losses(model, self._prepare_inputs(inputs), num_items_in_batch)
            self.separate.backward(losses, self.accelerator.backward)
        total = torch.zeros((), device=self.args.device)
        for loss in losses.values():
            total += loss.detach()
        self.check_loss(total)
        if self.accelerator.sync_gradients:
            scaler = self.accelerator.scaler
            notes = self.separate.combine(scaler.get_scale() if scaler is not None else 1.0)
            self.gradient_log.add(self.state.global_step, notes)
        return total

    def _losses(self, model: nn.Module, inputs: dict[str, Any], num_items: Tensor | int | None) -> dict[str, Tensor]:
        """The losses of a micro-batch by objective, scaled so that their mean over the processes is the step's loss."""
        group_B = inputs[GROUPS]
        batch = self.answers.batch({k: v for k, v in inputs.items() if k != GROUPS}, self.args.device)
        self.set_modes(model)
        if self.objectives.are_of_rows:
            answers = self.answers.at_answers(model, batch)
        else:
            answers = self.answers.everywhere(model, batch, with_labels=self.objectives.need_labels)
        losses = self.objectives.losses(
            answers, batch, group_B, self.items_of_process(num_items), self.current_gradient_accumulation_steps
        )
        extra = self.change.extra_loss()
        if extra is not None:  # divided among the objectives, so that it counts once in their sum
            share = extra / (self.args.gradient_accumulation_steps * max(1, len(losses)))
            losses = {name: loss + share for name, loss in losses.items()}
        return losses

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log as Trainer does; with a loss, also the summary of the gradients since the last one."""
        super().log({**logs, **self.gradient_log.summary()} if "loss" in logs else logs, *args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._save_checkpoint(*args, **kwargs)
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.args.process_index == 0:
            write_text(folder / STATE, json.dumps(self.separate.combiner.state_dict()))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.separate.combiner.load_state_dict(json.loads((Path(checkpoint) / STATE).read_text()))
