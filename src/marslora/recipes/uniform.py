"""LoRA with one rank for every part, the usual choice."""

from __future__ import annotations

from marslora.core.comparison import Recipe


def uniform() -> Recipe:
    """The defaults of marslora: rank 16, alpha / rank = 2, learning rate 2e-4."""
    return Recipe(source="Hu et al. 2021, arXiv 2106.09685", ranks=16)
