"""HydraLoRA: one shared A and four B, which a router in every linear weights for every token."""

from __future__ import annotations

from typing import Any

from marslora.core.comparison import Recipe


def hydralora(heads: int = 4, **options: Any) -> Recipe:
    """The settings of the public script, which adapts feed-forward blocks only (set `targets` of the model to do so).
    Other options are the adapter's."""
    return Recipe(
        source="Tian et al. 2024, arXiv 2404.19245",
        ranks=4,
        training={"adapter": {"name": "hydralora", "options": {"heads": heads, **options}}},
        defaults={"learning_rate": 2e-4, "alpha_over_rank": 8.0, "dropout": 0.05},
    )
