"""LoRA+: B learns sixteen times as fast as A."""

from __future__ import annotations

from marslora.core.comparison import Recipe


def lora_plus(ratio: float = 16.0) -> Recipe:
    """AdamW with ``ratio`` between the learning rates of B and A; the learning rate is A's."""
    return Recipe(
        source="Hayou et al. 2024, arXiv 2402.12354",
        ranks=8,
        training={"optimizer": {"name": "adamw", "options": {"b_ratio": ratio}}},
    )
