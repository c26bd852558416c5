"""`Trainer` for exact steps: every batch also at the previous point, with the same randomness."""

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
    """`transformers.Trainer` for optimizers that look back, such as ``MarsM(groups, exact=True)``; two passes a step.

    ::

        trainer = ExactTrainer(model, arguments, train_dataset=rows, optimizers=(optimizer, schedule))

    Every micro-batch runs at the previous point first. Clipping scales both gradients by the share of the one at the
    current point, so that their difference stays that of one function. Under DistributedDataParallel the gradient at
    the previous point is the mean over the processes, like the other. `ConfigError` for an optimizer that does not
    look back, for DeepSpeed and FSDP, which hold pieces of parameters, and for float16, whose loss scale may change
    between the two gradients.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        look = as_two_point(self.optimizer)
        if look is None:
            raise ConfigError(
                "ExactTrainer needs `optimizers=(optimizer, schedule)` with an optimizer of `marslora.optim` that is "
                f"exact; found {type(self.optimizer).__name__}. Pass `exact=True` to it, or use Trainer."
            )
        self.look: AbstractRecursion = look
        pieces = self.is_deepspeed_enabled or self.is_fsdp_enabled
        if pieces or self.args.fp16:
            found = "DeepSpeed or FSDP" if pieces else "float16"
            raise ConfigError(f"Exact steps cannot train with {found}: use DDP and bfloat16, or `exact=False`.")

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Trainer's at both points; the loss is that of the current one."""
        # What is gathered at the previous point is averaged over the processes once, with the last micro-batch.
        apart = model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext()
        with apart, self.look.previous_point():
            super().training_step(model, inputs, num_items_in_batch)
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            self._finish_looking(model)
        return loss

    @torch.no_grad()
    def _finish_looking(self, model: nn.Module) -> None:
        """The mean over the processes, times the share that Trainer's clipping is about to leave of the other."""
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
    """The final run's Trainer for optimizers that look back."""

    num_passes = 2
