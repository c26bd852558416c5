"""LoRA trained with Moonlight's Muon, whose steps are as large as AdamW's."""

from __future__ import annotations

from typing import Any

from marslora.core.comparison import Recipe


def moonlight(**options: Any) -> Recipe:
    """Learning rate 5e-4, as in "Can Muon fine-tune Adam-pretrained models?"; options are those of `moonlight`."""
    return Recipe(
        source="Liu et al. 2025, arXiv 2502.16982; with LoRA arXiv 2605.10468",
        ranks=16,
        training={"optimizer": {"name": "moonlight", "options": options}},
        defaults={"learning_rate": 5e-4},
    )
