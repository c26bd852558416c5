"""rsLoRA: LoRA scaled by alpha / sqrt(rank), so that large ranks keep learning."""

from __future__ import annotations

from marslora.core.comparison import Recipe


def rslora() -> Recipe:
    """Alpha 16 at every rank (``alpha_over_rank`` is that of rank 16) and learning rate 5e-5."""
    return Recipe(
        source="Kalajdzievski 2023, arXiv 2312.03732",
        ranks=16,
        training={"adapter": {"name": "lora", "options": {"use_rslora": True}}},
        defaults={"learning_rate": 5e-5, "alpha_over_rank": 4.0},
    )
