"""Adam's rule on a bucket: AdamW itself, the second rule of the matrix optimizers, and the last part of MARS-AdamW."""

from __future__ import annotations

import torch
from torch import Tensor

from marslora.optim._bucket import Bucket

BUFFERS = ("exp_avg", "exp_avg_sq")
"""Names of the first and second moment, as in `torch.optim.AdamW`."""


def adam_step(
    bucket: Bucket, grads: list[Tensor], betas: tuple[float, float], eps: float, *, early_eps: bool = False
) -> None:
    """``m = lerp(m, g, 1-b1); v = lerp(v, g^2, 1-b2); x = x (1 - lr wd) - lr m^ / (sqrt(v^) + eps)``.

    ``m^ = m/(1-b1^t)`` and ``v^ = v/(1-b2^t)`` with each member's own t (arXiv 1711.05101, algorithm 2). With
    ``early_eps``, eps is added to sqrt(v) before the correction (as in Moonlight and MARS-M), not after (as in torch).
    """
    averages, squares = (bucket.states[name] for name in BUFFERS)
    torch._foreach_lerp_(averages, grads, 1 - betas[0])
    adam_move(bucket, averages, squares, grads, betas, eps, early_eps=early_eps)


def adam_move(
    bucket: Bucket,
    averages: list[Tensor],
    squares: list[Tensor],
    grads: list[Tensor],
    betas: tuple[float, float],
    eps: float,
    *,
    early_eps: bool = False,
) -> None:
    """The rest of `adam_step`, when the first moment ``averages`` already includes this step's gradients."""
    beta1, beta2 = betas
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
    roots = torch._foreach_sqrt(squares)
    start_NK = (1 - beta2**bucket.steps_NK).sqrt()
    torch._foreach_div_(roots, bucket.foreach_values(start_NK))
    torch._foreach_add_(roots, bucket.foreach_values(eps / start_NK) if early_eps else eps)
    bucket.move(list(torch._foreach_div(averages, roots)), 1 / (1 - beta1**bucket.steps_NK))
