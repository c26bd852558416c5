"""Muon-MVR: orthogonal steps from STORM's momentum, ``m = g + b (m - g_before)`` (arXiv 2509.15816, 2512.16598).

Every step needs the gradient of its batch at two points: a closure, or ``previous_point()``.
"""

from __future__ import annotations

from typing import Any

from marslora.optim._orthogonal import AbstractOrthogonal
from marslora.optim._recursion import FirstStep


class MuonMVR(AbstractOrthogonal):
    """The recursion of `AbstractRecursion`, exact, with gamma 1 and without a clip.

    ``exact=False, gamma=0.025, clip=1.0`` is the paper's one-pass variant, `mars_m` but for ``ns_eps``.
    Other options: `Options`.
    """

    published_as_sum = True

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        *,
        momentum: float = 0.95,
        gamma: Any = 1.0,
        clip: Any = None,
        exact: bool = True,
        first_step: FirstStep = "paper",
        **options: Any,
    ):
        numbers = {"momentum": momentum, "gamma": gamma, "clip": clip, "exact": exact, "first_step": first_step}
        super().__init__(params, lr, numbers, options)
