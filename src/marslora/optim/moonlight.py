"""Moonlight's Muon: orthogonal steps of the size of AdamW's at every shape and rank (arXiv 2502.16982)."""

from __future__ import annotations

from dataclasses import dataclass

from marslora.optim._orthogonal import AbstractOrthogonal
from marslora.optim._recursion import NesterovConfig


class Moonlight(AbstractOrthogonal):
    """``s = b s + g; u = g + b s; x = x(1 - lr wd) - lr 0.2 sqrt(max(m, n)) NS(u)``; u is s without ``nesterov``."""

    published_as_sum = True
    early_eps = True

    @dataclass(frozen=True, kw_only=True)
    class Config(NesterovConfig):
        """The options of Moonlight and their defaults."""
