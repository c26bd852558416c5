"""Moonlight's Muon: orthogonal steps of the size of AdamW's at every shape and rank (arXiv 2502.16982)."""

from __future__ import annotations

from typing import Any

from marslora.optim._orthogonal import AbstractOrthogonal


class Moonlight(AbstractOrthogonal):
    """``s = b s + g; u = g + b s; x = x(1 - lr wd) - lr 0.2 sqrt(max(m, n)) NS(u)``.

    ``nesterov=False`` uses s itself. Other options: `Options`.
    """

    published_as_sum = True
    early_eps = True

    def __init__(self, params: Any, lr: Any = 1e-3, *, momentum: float = 0.95, nesterov: bool = True, **options: Any):
        super().__init__(params, lr, {"momentum": momentum, "gamma": None if nesterov else 0.0}, options)
