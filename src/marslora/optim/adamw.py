"""AdamW: adaptive steps with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101).

The same numbers as `torch.optim.AdamW`, for packs too.
"""

from __future__ import annotations

from typing import Any

from marslora.core.errors import ConfigError
from marslora.optim._adam import BUFFERS, adam_step
from marslora.optim._base import AbstractOptimizer, Bucket


class AdamW(AbstractOptimizer):
    """``m = lerp(m, g, 1-b1); v = lerp(v, g^2, 1-b2); x = x(1 - lr wd) - lr m^ / (sqrt(v^) + eps)``.

    ``m^`` and ``v^`` are corrected for their start at zero by each member's own step count.
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: Any = 0.0,
        b_ratio: float = 1.0,
        **unknown: Any,
    ):
        if unknown:
            known = ["betas", "eps", "weight_decay", "b_ratio"]
            raise ConfigError(f"AdamW has no option {sorted(unknown)}; it has {known}.")
        numbers = {"betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "b_ratio": b_ratio}
        super().__init__(params, {"lr": lr, **numbers})

    def rule_buffers(self, rule: str, group: dict[str, Any]) -> tuple[str, ...]:  # noqa: ARG002
        """First and second moment."""
        return BUFFERS

    def update(self, bucket: Bucket) -> None:
        """One step of every row."""
        adam_step(bucket, bucket.grads, bucket.group["betas"], bucket.group["eps"])
