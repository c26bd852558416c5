"""AdamW: adaptive steps with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101).

The same numbers as `torch.optim.AdamW`, for packs too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from marslora.optim._adam import BUFFERS, adam_step
from marslora.optim._base import AbstractOptimizer
from marslora.optim._bucket import Bucket
from marslora.optim._options import Decay, Epsilon


class AdamW(AbstractOptimizer):
    """``m = lerp(m, g, 1-b1); v = lerp(v, g^2, 1-b2); x = x(1 - lr wd) - lr m^ / (sqrt(v^) + eps)``.

    ``m^`` and ``v^`` are corrected for their start at zero by each member's own step count.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractOptimizer.Config):
        """The options of AdamW and their defaults."""

        lr: Any = 2e-4
        """Learning rate: that of most published LoRA runs."""
        betas: tuple[Decay, Decay] = (0.9, 0.999)
        """Decays of the first and second moment."""
        eps: Epsilon = 1e-8
        """Added to the root of the second moment."""

    def rule_buffers(self, rule: str, group: dict[str, Any]) -> tuple[str, ...]:  # noqa: ARG002
        """The names of the first and second moment."""
        return BUFFERS

    def update(self, bucket: Bucket) -> None:
        """One step of Adam's rule for every row."""
        adam_step(bucket, bucket.grads, bucket.group["betas"], bucket.group["eps"])
