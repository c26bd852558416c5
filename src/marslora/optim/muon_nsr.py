"""Muon-NSR: Muon on a momentum divided by its size and its noise (arXiv 2601.14603)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marslora.optim._base import Bucket
from marslora.optim._noise import AbstractNoiseAdapted


class MuonNSR(AbstractNoiseAdapted):
    """``NS(t / sqrt(t^2 + gamma v^ + eps))`` with Moonlight's scale; t and v^ of `AbstractNoiseAdapted`.

    Other options: `Options`.
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        *,
        momentum: float = 0.95,
        gamma: Any = 1.0,
        eps: float = 1e-8,
        **options: Any,
    ):
        super().__init__(params, lr, {"momentum": momentum, "gamma": gamma, "eps": eps}, options)

    def denominators(self, bucket: Bucket, noises: list[Tensor], targets: list[Tensor]) -> list[Tensor]:
        """``sqrt(t^2 + gamma v^ + eps)``."""
        torch._foreach_mul_(noises, bucket.foreach_values(bucket.number("gamma")))
        torch._foreach_addcmul_(noises, targets, targets)
        torch._foreach_add_(noises, bucket.group["eps"])
        return list(torch._foreach_sqrt(noises))
