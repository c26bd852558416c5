"""EVA: A starts at the principal directions of each layer's inputs, and ranks follow the explained variance."""

from __future__ import annotations

from typing import Any

from marslora.core.comparison import Recipe


def eva(**options: Any) -> Recipe:
    """Rank 16 on average and at most 32 in one linear (rho 2); options are the adapter's."""
    return Recipe(
        source="Paischer et al. 2024, arXiv 2410.07170",
        ranks=16,
        training={"adapter": {"name": "eva", "options": options}},
    )
