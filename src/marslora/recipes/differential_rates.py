"""LoRA with a learning rate for each part: the language model's is ten times the projector's and the vision tower's."""

from __future__ import annotations

from marslora.core.comparison import Recipe


def differential_rates() -> Recipe:
    """LLaVA-1.5's LoRA recipe (2e-4, projector 2e-5), with LLaVA-NeXT's tenth for the vision tower, which LLaVA-1.5
    leaves frozen."""
    return Recipe(
        source="Liu et al. 2023, arXiv 2310.03744",
        ranks=128,
        defaults={"learning_rate": 2e-4, "alpha_over_rank": 2.0},
        rate_factors={"projector": 0.1, "vision": 0.1},
    )
