"""MARS-Lion: steps of size lr along the sign of a variance-reduced momentum (arXiv 2411.10438)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marslora.optim._base import Bucket
from marslora.optim._recursion import AbstractRecursion, FirstStep


class MarsLion(AbstractRecursion):
    """The recursion of `AbstractRecursion`, then ``x = x(1 - lr wd) - lr sign(m)``.

    One momentum, not Lion's two. Elementwise: ``route="own"`` also takes vectors. Other options: `Options`.
    """

    vectors = True

    def __init__(
        self,
        params: Any,
        lr: Any = 3e-4,
        *,
        momentum: float = 0.95,
        gamma: Any = 0.025,
        clip: Any = 1.0,
        exact: bool = False,
        first_step: FirstStep = "paper",
        **options: Any,
    ):
        numbers = {"momentum": momentum, "gamma": gamma, "clip": clip, "exact": exact, "first_step": first_step}
        super().__init__(params, lr, numbers, options)

    def precondition(self, bucket: Bucket, momenta: list[Tensor], corrected: list[Tensor] | None) -> None:  # noqa: ARG002
        """The sign."""
        bucket.move(list(torch._foreach_sign(momenta)))
