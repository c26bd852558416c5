"""AdamW: adaptive steps with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101).

The same numbers as `torch.optim.AdamW`, for packs too.
"""

from __future__ import annotations

from typing import Any

import torch

from marslora.optim._base import AbstractOptimizer, Bucket


class AdamW(AbstractOptimizer):
    """``m = lerp(m, g, 1-b1); v = lerp(v, g^2, 1-b2); x = x(1 - lr wd) - lr m^ / (sqrt(v^) + eps)``.

    ``m^`` and ``v^`` are corrected for their start at zero by each member's own step count.
    """

    state_names = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: Any = 0.0,
    ):
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    def update(self, bucket: Bucket) -> None:
        """One step of every row."""
        adam_step(bucket, bucket.states["exp_avg"], bucket.states["exp_avg_sq"])


def adam_step(bucket: Bucket, averages: list[torch.Tensor], squares: list[torch.Tensor]) -> None:
    """The update of `AdamW` on a bucket, with these buffers as first and second moment."""
    beta1, beta2 = bucket.group["betas"]
    lr = bucket.number("lr")
    torch._foreach_mul_(bucket.params, bucket.spread(1 - lr * bucket.number("weight_decay")))
    torch._foreach_lerp_(averages, bucket.grads, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, bucket.grads, bucket.grads, 1 - beta2)
    updates = torch._foreach_sqrt(squares)
    torch._foreach_div_(updates, bucket.spread((1 - beta2**bucket.steps_NK).sqrt()))
    torch._foreach_add_(updates, bucket.group["eps"])
    torch._foreach_reciprocal_(updates)
    torch._foreach_mul_(updates, averages)
    torch._foreach_mul_(updates, bucket.spread(lr / (1 - beta1**bucket.steps_NK)))
    torch._foreach_sub_(bucket.params, updates)
