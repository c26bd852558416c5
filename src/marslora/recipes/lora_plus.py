"""LoRA+: the learning rate of B is sixteen times that of A."""

from __future__ import annotations

from marslora.core.comparison import Recipe


def lora_plus(ratio: float = 16.0) -> Recipe:
    """AdamW with the learning rate of B ``ratio`` times that of A; the learning rate that you set is that of A."""
    return Recipe(
        source="Hayou et al. 2024, arXiv 2402.12354",
        ranks=8,
        training={"optimizer": {"name": "adamw", "options": {"b_ratio": ratio}}},
    )
