"""Warm-up, stable, decay as a torch scheduler."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from marslora.core.schedule import rate_factor
from marslora.core.spec import TrainingSpec


def wsd_scheduler(optimizer: Optimizer, training: TrainingSpec, total_steps: int, start_step: int = 0) -> LambdaLR:
    """Every group's learning rate over a full run of ``total_steps``, of which ``start_step`` are already done."""
    return LambdaLR(optimizer, lambda step: rate_factor(start_step + step, total_steps, training, decays=True))
