"""GeoLoRA: a product U S V^T whose bases rotate and whose rank grows and shrinks along the gradient flow."""

from __future__ import annotations

from typing import Any

from marslora.core.comparison import Recipe


def geolora(**options: Any) -> Recipe:
    """The released settings (tau 0.15, learning rate 1e-3, alpha 16); options are the adapter's."""
    return Recipe(
        source="Schotthoefer et al. 2025, arXiv 2410.18720",
        ranks=16,
        training={"adapter": {"name": "geolora", "options": options}},
        defaults={"learning_rate": 1e-3, "alpha_over_rank": 1.0},
    )
