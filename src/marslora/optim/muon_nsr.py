"""Muon-NSR: Muon on a momentum divided by its size and its noise (arXiv 2601.14603)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marslora.optim._bucket import Bucket
from marslora.optim._noise import AbstractNoiseAdapted


class MuonNSR(AbstractNoiseAdapted):
    """``NS(t / sqrt(t^2 + gamma v^ + eps))`` with Moonlight's scale; t and v^ as in `AbstractNoiseAdapted`."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractNoiseAdapted.Config):
        """The options of Muon-NSR and their defaults."""

        gamma: Any = 1.0
        """Weight of the noise: one number, or one for each member; this project's choice."""

    def denominators(self, bucket: Bucket, noises: list[Tensor], targets: list[Tensor]) -> list[Tensor]:
        """``sqrt(t^2 + gamma v^ + eps)`` for every target t."""
        torch._foreach_mul_(noises, bucket.foreach_values(bucket.number("gamma")))
        torch._foreach_addcmul_(noises, targets, targets)
        torch._foreach_add_(noises, bucket.group["eps"])
        return list(torch._foreach_sqrt(noises))
