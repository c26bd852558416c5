"""MARS-Lion: steps of size lr along the sign of a variance-reduced momentum (arXiv 2411.10438)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marslora.optim._bucket import Bucket
from marslora.optim._recursion import AbstractRecursion, CorrectedConfig


class MarsLion(AbstractRecursion):
    """The recursion of `AbstractRecursion`, then ``x = x(1 - lr wd) - lr sign(m)``.

    One momentum, not Lion's two. Elementwise: ``route="own"`` also takes vectors.
    """

    vectors = True

    @dataclass(frozen=True, kw_only=True)
    class Config(CorrectedConfig):
        """The options of MARS-Lion and their defaults."""

        lr: Any = 3e-4
        """Learning rate: a third of AdamW's, as published."""

    def precondition(self, bucket: Bucket, momenta: list[Tensor], corrected: list[Tensor] | None) -> None:  # noqa: ARG002
        """Move along the sign of the momentum."""
        bucket.move(list(torch._foreach_sign(momenta)))
