"""Pareto LoRA: combines the gradients of two objectives, by minimum norm if they conflict, in the lower layers."""

from __future__ import annotations

from typing import Any

from marslora.core.comparison import Recipe


def pareto_lora(**options: Any) -> Recipe:
    """Rank 32 and learning rate 1e-5; options are those of the combiner.

    The paper's objectives are the two losses of a unified model. Name yours in `objectives` of the common settings; by
    default they are the rows with and without images.
    """
    return Recipe(
        source="Wei et al. 2026, arXiv 2606.17296",
        ranks=32,
        training={"gradients": {"name": "pareto_lora", "options": options}},
        defaults={
            "learning_rate": 1e-5,
            "objectives": [{"name": "text", "rows": "text"}, {"name": "pictures", "rows": "pictures"}],
        },
    )
