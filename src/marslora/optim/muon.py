"""Muon: orthogonal steps from Nesterov momentum (Jordan 2024), scaled by ``sqrt(max(1, m/n))``.

The scale depends on the rank for B (outputs, rank); `moonlight` has one that does not.
"""

from __future__ import annotations

from typing import Any

from marslora.optim._orthogonal import AbstractOrthogonal


class Muon(AbstractOrthogonal):
    """``s = lerp(s, g, 1-b); u = lerp(s, g, 1-b); x = x(1 - lr wd) - lr sqrt(max(1, m/n)) NS(u)``.

    ``nesterov=False`` uses s itself. Other options: `Options`.
    """

    shape_scale = "original"

    def __init__(self, params: Any, lr: Any = 0.02, *, momentum: float = 0.95, nesterov: bool = True, **options: Any):
        super().__init__(params, lr, {"momentum": momentum, "gamma": None if nesterov else 0.0}, options)
