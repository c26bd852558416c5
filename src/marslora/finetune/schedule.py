"""The learning-rate schedule (warm-up, stable, decay) as a torch scheduler."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from marslora.core.schedule import rate_factor
from marslora.core.spec import TrainingSpec


def make_wsd_scheduler(optimizer: Optimizer, training: TrainingSpec, total_steps: int, start_step: int = 0) -> LambdaLR:
    """A scheduler of every group's learning rate in a full run of ``total_steps``, from step ``start_step`` on."""
    return LambdaLR(optimizer, lambda step: rate_factor(start_step + step, total_steps, training, decays=True))
