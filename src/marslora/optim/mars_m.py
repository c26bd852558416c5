"""MARS-M: Moonlight's steps from a variance-reduced momentum (arXiv 2510.21800).

Say MARS-M-approx for the default: unless ``exact``, it lies between plain and Nesterov momentum, but for its clip.
"""

from __future__ import annotations

from typing import Any

from marslora.optim._orthogonal import AbstractOrthogonal
from marslora.optim._recursion import FirstStep


class MarsM(AbstractOrthogonal):
    """The recursion of `AbstractRecursion` with Moonlight's steps.

    ``clip=None`` is the one-buffer form; ``exact=True`` takes the same batch at the previous point, two passes a step.
    Other options: `Options`.
    """

    early_eps = True

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
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
