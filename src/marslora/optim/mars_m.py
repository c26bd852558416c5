"""MARS-M: Moonlight's steps from a variance-reduced momentum (arXiv 2510.21800).

Call the default MARS-M-approx: unless ``exact``, and apart from its clip, it is a point between plain and Nesterov
momentum.
"""

from __future__ import annotations

from dataclasses import dataclass

from marslora.optim._orthogonal import AbstractOrthogonal
from marslora.optim._recursion import CorrectedConfig


class MarsM(AbstractOrthogonal):
    """The recursion of `AbstractRecursion` with Moonlight's steps.

    ``clip=None`` is the form with one buffer; ``exact=True`` runs the same batch at the previous point too.
    """

    early_eps = True

    @dataclass(frozen=True, kw_only=True)
    class Config(CorrectedConfig):
        """The options of MARS-M and their defaults."""
