"""`transformers.Trainer` with marslora's order of rows, loss and checks; everything else is Trainer's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer

from marslora.core.errors import TrainingError
from marslora.core.files import explain_write_errors
from marslora.core.spec import FinalSpec, ModelSpec
from marslora.finetune.loss import AnswerLoss, average_over_step
from marslora.gradients import average_over_processes
from marslora.methods import AbstractChange, PackedLayer
from marslora.models.loading import LoadedModel, resolve_device

NUM_LOGS, NUM_CHECKPOINTS = 50, 20
STATE = "adapter_state.safetensors"
"""The file of a Trainer checkpoint that holds all trained tensors."""


class FinalTrainer(Trainer):  # type: ignore[misc]
    """Trains on the given micro-batches in order, and stops at the first loss that is not finite."""

    num_passes = 1
    """Passes of a micro-batch through the model, each forward and backward."""

    def __init__(
        self,
        change: AbstractChange,
        answers: AnswerLoss,
        *,
        micro_batches: list[list[int]],
        collate: Callable[..., Any],
        **kwargs: Any,
    ):
        # Given a loss function, Trainer counts the step's answer tokens and leaves the division to that function.
        super().__init__(change.model, compute_loss_func=average_over_step, **kwargs)
        self.change, self.answers = change, answers
        self.micro_batches = micro_batches
        self.num_backwards = 1
        """Backward passes of a micro-batch."""
        self.collate = collate
        self.train_mode_modules = [
            module for name, module in self.model.named_modules() if _stays_in_training_mode(name, module)
        ]

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This process's micro-batches of the whole run as one epoch, so that Trainer skips those already seen."""
        rows: Any = RowNumbers()
        sampler: Any = self.micro_batches
        return DataLoader(rows, batch_sampler=sampler, collate_fn=self.collate)

    def compute_loss(
        self, model: nn.Module, inputs: Any, *_: Any, num_items_in_batch: Tensor | int | None = None, **__: Any
    ) -> Any:
        """The micro-batch's share of the step's mean loss; the frozen base is in evaluation mode, as in calibration."""
        self.set_modes(model)
        nats_N = self.answers.nats(model, self.answers.batch(inputs, self.args.device))
        loss = average_over_step(nats_N, self.items_of_process(num_items_in_batch))
        extra = self.change.extra_loss()
        return loss if extra is None else loss + extra / self.args.gradient_accumulation_steps

    def items_of_process(self, num_items: Tensor | int | None) -> Tensor | float | None:
        """The step's answer tokens per process; dividing by them makes the mean over processes the step's loss."""
        return None if num_items is None else num_items / self.accelerator.num_processes

    def set_modes(self, model: nn.Module) -> None:
        """Put everything but `_stays_in_training_mode` in evaluation mode."""
        model.eval()
        for module in self.train_mode_modules:
            module.training = True

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Take Trainer's step. Raises `TrainingError` if its loss is not finite.

        After the last micro-batch of a step the gradients are averaged over the processes at once. While they arise,
        DistributedDataParallel would count on outputs of the model for what reaches a parameter; an adapter's extra
        loss reaches others too, and a process whose rows have no picture does not use its tower.
        """
        no_sync = None
        if isinstance(model, DistributedDataParallel) and model.require_backward_grad_sync:
            no_sync = model.no_sync()
        with no_sync or contextlib.nullcontext():
            loss: Tensor = super().training_step(model, *args, **kwargs)
        if no_sync is not None:
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            means = average_over_processes([parameter.grad for parameter in trained], trained)
            for parameter, mean in zip(trained, means, strict=True):
                parameter.grad = mean
        return self.check_loss(loss)

    def check_loss(self, loss: Tensor) -> Tensor:
        """Return the loss. Raises `TrainingError` if it is not finite."""
        if not torch.isfinite(loss):
            raise TrainingError(
                f"The training loss became {loss.item()} at step {self.state.global_step + 1} of the final run. "
                "Lower `learning_rate`, lengthen `warmup`, or set `clip_norm` to 1."
            )
        return loss

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Save the trained tensors, without the base model."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if self.args.should_save:
            save_file(self.change.state(), folder / STATE)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with explain_write_errors(Path(self.args.output_dir)):
            super()._save_checkpoint(*args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:  # noqa: ARG002
        self.change.load_state(load_file(Path(resume_from_checkpoint) / STATE))


class RowNumbers:
    """A data set of row numbers, which the collate function turns into batches."""

    def __getitem__(self, row: int) -> int:
        return row


def _stays_in_training_mode(name: str, module: nn.Module) -> bool:
    """Whether the module is in training mode during training, unlike the frozen base.

    True for dropout, for layers that apply dropout depending on their own mode (PEFT's with DoRA, packed ones) but not
    for the linears in them, and for layers that recompute activations, which they do in training mode only.
    """
    recomputes = isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
    return recomputes or isinstance(module, LoraLayer | PackedLayer) or "lora_dropout" in name


def make_training_arguments(
    spec: FinalSpec, loaded: LoadedModel, num_steps: int, num_processes: int
) -> TrainingArguments:
    """Trainer's settings for ``num_steps`` optimizer steps of ``loaded``, in the precision it was loaded in."""
    training, on_cpu = spec.training, loaded.device.type == "cpu"
    arguments = TrainingArguments(
        output_dir=str(Path(spec.output_folder) / "checkpoints"),
        max_steps=num_steps,
        per_device_train_batch_size=max(1, training.batch_size // (training.accumulation * num_processes)),
        gradient_accumulation_steps=training.accumulation,
        max_grad_norm=training.clip_norm,
        logging_steps=max(1, num_steps // NUM_LOGS),
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=max(1, num_steps // NUM_CHECKPOINTS),
        save_total_limit=2,
        report_to=list(spec.report_to),
        seed=spec.seed,
        bf16=loaded.dtype is torch.bfloat16,
        fp16=loaded.dtype is torch.float16,
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and num_processes > 1 else None,
        ddp_find_unused_parameters=False,
        remove_unused_columns=False,
        disable_tqdm=True,
        log_level="error",
        dataloader_pin_memory=not on_cpu,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs are used by torchrun only, never by DataParallel
    return arguments


def read_launched_processes() -> tuple[int, int]:
    """(local rank, number of processes) from the environment that torchrun sets; (0, 1) without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def place_model(model: ModelSpec) -> ModelSpec:
    """The model spec on this process's device: under torchrun with CUDA, the one of its local rank."""
    local_rank, num_processes = read_launched_processes()
    device = resolve_device(model.device)
    if num_processes == 1 or device.type != "cuda":
        return model
    return model.model_copy(update={"device": f"cuda:{local_rank}"})
