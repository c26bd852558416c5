"""Muon-MVR: orthogonal steps from STORM's momentum, ``m = g + b (m - g_before)`` (arXiv 2509.15816, 2512.16598).

Every step needs the gradient of its batch at two points: a closure, or ``previous_point()``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from marslora.optim._orthogonal import AbstractOrthogonal
from marslora.optim._recursion import CorrectedConfig


class MuonMVR(AbstractOrthogonal):
    """The recursion of `AbstractRecursion`, exact, with gamma 1 and without a clip.

    ``exact=False, gamma=0.025, clip=1.0`` is the paper's one-pass variant, which is `mars_m` except for ``ns_eps``.
    """

    published_as_sum = True

    @dataclass(frozen=True, kw_only=True)
    class Config(CorrectedConfig):
        """The options of Muon-MVR and their defaults."""

        gamma: Any = 1.0
        """Strength of the correction; 1 is STORM's."""
        clip: Any = None
        """Largest Frobenius norm of c; None: no clipping, as published."""
        exact: bool = True
        """Whether L is the gradient of the same batch at the previous point, as published."""
