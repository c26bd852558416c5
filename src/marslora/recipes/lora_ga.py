"""LoRA-GA: LoRA initialised along the gradient of the first batches."""

from __future__ import annotations

from typing import Any

from marslora.core.comparison import Recipe


def lora_ga(**options: Any) -> Recipe:
    """Rank 8 and alpha 16, as in the paper's experiments; options are the adapter's."""
    return Recipe(
        source="Wang et al. 2024, arXiv 2407.05000",
        ranks=8,
        training={"adapter": {"name": "lora_ga", "options": options}},
        defaults={"alpha_over_rank": 2.0},
    )
