"""Muon: orthogonal steps from Nesterov momentum (Jordan 2024), scaled by ``sqrt(max(1, m/n))``.

The scale depends on the rank for B (outputs, rank); that of `moonlight` does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from marslora.optim._orthogonal import AbstractOrthogonal
from marslora.optim._recursion import NesterovConfig


class Muon(AbstractOrthogonal):
    """``s = lerp(s, g, 1-b); u = lerp(s, g, 1-b); x = x(1 - lr wd) - lr sqrt(max(1, m/n)) NS(u)``.

    Without ``nesterov``, u is s itself.
    """

    shape_scale = "original"

    @dataclass(frozen=True, kw_only=True)
    class Config(NesterovConfig):
        """The options of Muon and their defaults."""

        lr: Any = 0.02
        """Learning rate, as published."""
