"""A `Trainer` for exact steps, which run every batch at the previous point as well, with the same randomness."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer

from marslora.core.errors import ConfigError
from marslora.finetune.trainer import FinalTrainer
from marslora.optim import AbstractRecursion, as_two_point


class ExactTrainer(Trainer):  # type: ignore[misc]
    """`transformers.Trainer` for optimizers that take exact steps, such as ``MarsM(groups, exact=True)``.

    ::

        trainer = ExactTrainer(model, arguments, train_dataset=rows, optimizers=(optimizer, schedule))

    A step takes two passes: every micro-batch runs at the previous point first. Clipping scales both gradients by the
    factor for the gradient at the current point, so that their difference remains the difference of one function.
    Under DistributedDataParallel both gradients are means over the processes.

    Raises `ConfigError` for an optimizer without exact steps, for DeepSpeed and FSDP, which divide parameters into
    pieces, and for float16, whose loss scale may change between the two gradients.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        look = as_two_point(self.optimizer)
        if look is None:
            raise ConfigError(
                "ExactTrainer needs `optimizers=(optimizer, schedule)` with an optimizer of `marslora.optim` that "
                f"takes exact steps; found {type(self.optimizer).__name__}. Pass `exact=True` to it, or use Trainer."
            )
        self.look: AbstractRecursion = look
        pieces = self.is_deepspeed_enabled or self.is_fsdp_enabled
        if pieces or self.args.fp16:
            unsupported = "DeepSpeed or FSDP" if pieces else "float16"
            raise ConfigError(
                f"Exact steps cannot be combined with {unsupported}. Use DDP and bfloat16, or set `exact=False`."
            )

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Take Trainer's step at both points; return the loss at the current point."""
        # The gradient at the previous point is averaged over the processes once, after the last micro-batch.
        no_sync = model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext()
        with no_sync, self.look.previous_point():
            super().training_step(model, inputs, num_items_in_batch)
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            self._finish_looking(model)
        return loss

    @torch.no_grad()
    def _finish_looking(self, model: nn.Module) -> None:
        """Average the gradient at the previous point over the processes; scale it as Trainer will clip the other."""
        lasts = [last for _, last in self.look.last_gradients()]
        if self.accelerator.num_processes > 1:
            flat = torch.cat([last.flatten() for last in lasts])
            distributed.all_reduce(flat)
            means = (flat / self.accelerator.num_processes).split([last.numel() for last in lasts])
            for last, mean in zip(lasts, means, strict=True):
                last.copy_(mean.view_as(last))
        limit = self.args.max_grad_norm
        if limit:
            norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            torch._foreach_mul_(lasts, (limit / (norm + 1e-6)).clamp(max=1.0))


class ExactFinalTrainer(ExactTrainer, FinalTrainer):
    """The final run's Trainer for optimizers that take exact steps."""

    num_passes = 2
