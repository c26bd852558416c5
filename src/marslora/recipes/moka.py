"""MokA: one A per modality, one shared B, and attention from image tokens to text tokens in rank space."""

from __future__ import annotations

from marslora.core.comparison import Recipe


def moka(lam: float = 0.05) -> Recipe:
    """The settings of the visual-text release; ``lam`` is the weight of the attention."""
    return Recipe(
        source="Wei et al. 2025, arXiv 2506.05191",
        ranks=4,
        training={"adapter": {"name": "moka", "options": {"lam": lam}}},
        defaults={"learning_rate": 1e-4, "alpha_over_rank": 4.0, "dropout": 0.05},
    )
