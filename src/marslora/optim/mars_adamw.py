"""MARS-AdamW: AdamW on a variance-reduced gradient (arXiv 2411.10438)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from marslora.optim._adam import adam_move
from marslora.optim._base import Bucket
from marslora.optim._recursion import AbstractRecursion, FirstStep


class MarsAdamW(AbstractRecursion):
    """The recursion of `AbstractRecursion`, then Adam's rule with m and the running average of c squared.

    As the authors' code has it (their page squares the raw gradient). Elementwise: ``route="own"`` also takes vectors.
    Other options: `Options`.
    """

    needs_corrected = True
    vectors = True

    def __init__(
        self,
        params: Any,
        lr: Any = 3e-3,
        *,
        momentum: float = 0.95,
        gamma: Any = 0.025,
        beta2: float = 0.99,
        eps: float = 1e-8,
        clip: Any = 1.0,
        exact: bool = False,
        first_step: FirstStep = "paper",
        **options: Any,
    ):
        numbers = {
            "momentum": momentum,
            "gamma": gamma,
            "clip": clip,
            "exact": exact,
            "first_step": first_step,
            "beta2": beta2,
            "eps": eps,
        }
        super().__init__(params, lr, numbers, options)

    def own_buffers(self, group: dict[str, Any]) -> tuple[str, ...]:
        """The recursion's, and the second moment."""
        return (*super().own_buffers(group), "exp_avg_sq")

    def precondition(self, bucket: Bucket, momenta: list[Tensor], corrected: list[Tensor] | None) -> None:
        """Adam's."""
        group = bucket.group
        betas = (group["momentum"], group["beta2"])
        adam_move(bucket, momenta, bucket.states["exp_avg_sq"], corrected or [], betas, group["eps"])
