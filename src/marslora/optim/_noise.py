"""Muon with an estimate of the gradient's noise (arXiv 2601.14603), the elementwise part before the orthogonal one.

The formulas are from a secondary source; the scale of the step, Moonlight's, and gamma are this project's choice.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marslora.optim._bucket import Bucket
from marslora.optim._options import Decay, Epsilon
from marslora.optim._recursion import momentum_of
from marslora.optim._routed import AbstractRouted


class AbstractNoiseAdapted(AbstractRouted):
    """With momentum b: ``v = b v + b (1-b) (m - g)^2; m = lerp(m, g, 1-b); t = g + b/(1-b) m^``, then a denominator.

    ``m^`` and ``v^`` are corrected for their start at 0; ``m`` in v is the one before this step.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractRouted.Config):
        """Options of Muon with an estimate of the noise."""

        momentum: Decay = 0.95
        """Decay b of both running averages, in [0, 1)."""
        eps: Epsilon = 1e-8
        """Added below the root."""

    def own_buffers(self, group: dict[str, Any]) -> tuple[str, ...]:  # noqa: ARG002
        """The running mean and variance of the gradient."""
        return ("grad_avg", "noise")

    @abstractmethod
    def denominators(self, bucket: Bucket, noises: list[Tensor], targets: list[Tensor]) -> list[Tensor]:
        """The divisors of the targets t, from the corrected variances (which may be overwritten)."""

    def own_update(self, bucket: Bucket) -> None:
        """Update mean and variance, divide, and take an orthogonal step."""
        beta = momentum_of(bucket)
        means, variances = bucket.states["grad_avg"], bucket.states["noise"]
        gaps = torch._foreach_sub(means, bucket.grads)
        torch._foreach_mul_(variances, beta)
        torch._foreach_addcmul_(variances, gaps, gaps, beta * (1 - beta))
        torch._foreach_lerp_(means, bucket.grads, 1 - beta)
        start_NK = 1 - beta**bucket.steps_NK
        targets = list(torch._foreach_mul(means, bucket.foreach_values(beta / (1 - beta) / start_NK)))
        torch._foreach_add_(targets, bucket.grads)
        noises = list(torch._foreach_div(variances, bucket.foreach_values(start_NK)))
        torch._foreach_div_(targets, self.denominators(bucket, noises, targets))
        self.orthogonal_step(bucket, targets, bucket.group["ns_eps"])
