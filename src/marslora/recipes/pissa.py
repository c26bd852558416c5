"""PiSSA: LoRA initialised with the largest singular values and vectors of each weight."""

from __future__ import annotations

from typing import Any

from marslora.core.comparison import Recipe


def pissa(**options: Any) -> Recipe:
    """Rank 128, alpha equal to the rank, learning rate 2e-5, as in the paper; options are the adapter's."""
    return Recipe(
        source="Meng et al. 2024, arXiv 2404.02948",
        ranks=128,
        training={"adapter": {"name": "pissa", "options": options}},
        defaults={"learning_rate": 2e-5, "alpha_over_rank": 1.0},
    )
