"""MARS-Shampoo: Muon's steps from a variance-reduced momentum (arXiv 2411.10438), scaled by ``sqrt(max(1, m/n))``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from marslora.optim._options import Epsilon
from marslora.optim._orthogonal import AbstractOrthogonal
from marslora.optim._recursion import CorrectedConfig


class MarsShampoo(AbstractOrthogonal):
    """The recursion of `AbstractRecursion`, then ``x = x(1 - lr wd) - lr sqrt(max(1, m/n)) NS(m / (1-b))``."""

    shape_scale = "original"
    published_as_sum = True

    @dataclass(frozen=True, kw_only=True)
    class Config(CorrectedConfig):
        """The options of MARS-Shampoo and their defaults."""

        lr: Any = 3e-3
        """Learning rate, as published."""
        ns_eps: Epsilon = 1e-8
        """Added to the Frobenius norm, as published."""
