"""LoRA with a learning rate per part: ten times higher for the language model than for projector and vision tower."""

from __future__ import annotations

from marslora.core.comparison import Recipe


def differential_rates() -> Recipe:
    """LLaVA-1.5's LoRA settings (2e-4, projector 2e-5). LLaVA-1.5 freezes the vision tower, so the tower's rate is
    LLaVA-NeXT's, a tenth of the language model's."""
    return Recipe(
        source="Liu et al. 2023, arXiv 2310.03744",
        ranks=128,
        defaults={"learning_rate": 2e-4, "alpha_over_rank": 2.0},
        rate_factors={"projector": 0.1, "vision": 0.1},
    )
