"""Muon-VS: Muon on a momentum divided by its noise (arXiv 2601.14603)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marslora.optim._base import Bucket
from marslora.optim._noise import AbstractNoiseAdapted


class MuonVS(AbstractNoiseAdapted):
    """``NS(t / sqrt(v^ + eps))`` with Moonlight's scale; t and v^ of `AbstractNoiseAdapted`.

    Its first step is nearly the matrix of the gradient's signs, which is often singular when small; the exact polar
    factor jumps there. Other options: `Options`.
    """

    def __init__(self, params: Any, lr: Any = 1e-3, *, momentum: float = 0.95, eps: float = 1e-8, **options: Any):
        super().__init__(params, lr, {"momentum": momentum, "eps": eps}, options)

    def denominators(self, bucket: Bucket, noises: list[Tensor], targets: list[Tensor]) -> list[Tensor]:  # noqa: ARG002
        """``sqrt(v^ + eps)``."""
        torch._foreach_add_(noises, bucket.group["eps"])
        return list(torch._foreach_sqrt(noises))
