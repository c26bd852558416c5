"""LLaVA-MoLE (also called LoRA-MoE): three experts in feed-forward blocks, one per token, with load balancing."""

from __future__ import annotations

from typing import Any

from marslora.core.comparison import Recipe


def llava_mole(**options: Any) -> Recipe:
    """Three experts of rank 32, load-balancing weight 0.01, LoRA in attention; options are those of `llava_mole`."""
    return Recipe(
        source="Chen et al. 2024, arXiv 2401.16160",
        ranks=32,
        training={"adapter": {"name": "llava_mole", "options": options}},
        defaults={"learning_rate": 2e-4, "alpha_over_rank": 2.0, "dropout": 0.05},
        rate_factors={"projector": 0.1},
    )
