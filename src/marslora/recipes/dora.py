"""DoRA: LoRA for the direction of each row of a weight, and a trained magnitude for each row."""

from __future__ import annotations

from marslora.core.comparison import Recipe


def dora() -> Recipe:
    """Rank 32, alpha 64 and dropout 0.05, as in the authors' LLaMA-7B script."""
    return Recipe(
        source="Liu et al. 2024, arXiv 2402.09353",
        ranks=32,
        training={"adapter": {"name": "lora", "options": {"use_dora": True}}},
        defaults={"learning_rate": 2e-4, "alpha_over_rank": 2.0, "dropout": 0.05},
    )
