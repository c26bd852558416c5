"""MARS-Shampoo: Muon's steps from a variance-reduced momentum (arXiv 2411.10438), scaled by ``sqrt(max(1, m/n))``."""

from __future__ import annotations

from typing import Any

from marslora.optim._orthogonal import AbstractOrthogonal
from marslora.optim._recursion import FirstStep


class MarsShampoo(AbstractOrthogonal):
    """The recursion of `AbstractRecursion`, then ``x = x(1 - lr wd) - lr sqrt(max(1, m/n)) NS(m / (1-b))``.

    Other options: `Options`; ``ns_eps`` is 1e-8 as published.
    """

    shape_scale = "original"
    published_as_sum = True

    def __init__(
        self,
        params: Any,
        lr: Any = 3e-3,
        *,
        momentum: float = 0.95,
        gamma: Any = 0.025,
        clip: Any = 1.0,
        exact: bool = False,
        first_step: FirstStep = "paper",
        **options: Any,
    ):
        numbers = {"momentum": momentum, "gamma": gamma, "clip": clip, "exact": exact, "first_step": first_step}
        super().__init__(params, lr, numbers, {"ns_eps": 1e-8, **options})
