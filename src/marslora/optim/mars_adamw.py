"""MARS-AdamW: AdamW on a variance-reduced gradient (arXiv 2411.10438)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from marslora.optim._adam import adam_move
from marslora.optim._bucket import Bucket
from marslora.optim._options import Decay, Epsilon
from marslora.optim._recursion import AbstractRecursion, CorrectedConfig


class MarsAdamW(AbstractRecursion):
    """The recursion of `AbstractRecursion`, then Adam's rule with m and the running average of c squared.

    As in the authors' code (the paper squares the raw gradient). Elementwise: ``route="own"`` also takes vectors.
    """

    needs_corrected = True
    vectors = True

    @dataclass(frozen=True, kw_only=True)
    class Config(CorrectedConfig):
        """The options of MARS-AdamW and their defaults."""

        lr: Any = 3e-3
        """Learning rate, as published."""
        beta2: Decay = 0.99
        """Decay of the second moment."""
        eps: Epsilon = 1e-8
        """Added to the root of the second moment."""

    def own_buffers(self, group: dict[str, Any]) -> tuple[str, ...]:
        """The recursion's state and the second moment."""
        return (*super().own_buffers(group), "exp_avg_sq")

    def precondition(self, bucket: Bucket, momenta: list[Tensor], corrected: list[Tensor] | None) -> None:
        """Move by Adam's rule."""
        group = bucket.group
        betas = (group["momentum"], group["beta2"])
        adam_move(bucket, momenta, bucket.states["exp_avg_sq"], corrected or [], betas, group["eps"])
