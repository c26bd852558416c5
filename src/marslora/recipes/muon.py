"""LoRA trained by Muon with steps the size of AdamW's (Moonlight)."""

from __future__ import annotations

from typing import Any

from marslora.core.comparison import Recipe


def muon(**options: Any) -> Recipe:
    """Learning rate 5e-4, that of "Can Muon fine-tune Adam-pretrained models?"; options are those of `moonlight`."""
    return Recipe(
        source="Liu et al. 2025, arXiv 2502.16982; with LoRA arXiv 2605.10468",
        ranks=16,
        training={"optimizer": {"name": "moonlight", "options": options}},
        defaults={"learning_rate": 5e-4},
    )
