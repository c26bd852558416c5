"""Muon-VS: Muon on a momentum divided by its noise (arXiv 2601.14603)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from marslora.optim._bucket import Bucket
from marslora.optim._noise import AbstractNoiseAdapted


class MuonVS(AbstractNoiseAdapted):
    """``NS(t / sqrt(v^ + eps))`` with Moonlight's scale; t and v^ as in `AbstractNoiseAdapted`.

    Its first step is nearly the matrix of the gradient's signs. Small matrices of signs are often singular, where the
    exact polar factor jumps.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractNoiseAdapted.Config):
        """The options of Muon-VS and their defaults."""

    def denominators(self, bucket: Bucket, noises: list[Tensor], targets: list[Tensor]) -> list[Tensor]:  # noqa: ARG002
        """``sqrt(v^ + eps)`` for every target."""
        torch._foreach_add_(noises, bucket.group["eps"])
        return list(torch._foreach_sqrt(noises))
