"""LoRA of one rank in every part: what everybody does."""

from __future__ import annotations

from marslora.core.comparison import Recipe


def uniform() -> Recipe:
    """The library's own defaults: rank 16, alpha / r = 2, learning rate 2e-4."""
    return Recipe(source="Hu et al. 2021, arXiv 2106.09685", ranks=16)
