"""Pareto LoRA: the gradients of two objectives, min-norm in conflict, balanced otherwise, in the lower layers."""

from __future__ import annotations

from typing import Any

from marslora.core.comparison import Recipe


def pareto_lora(**options: Any) -> Recipe:
    """Rank 32, learning rate 1e-5; options are those of the combiner.

    The paper's objectives are the two losses of a unified model: name yours in `objectives` of the common settings.
    Without, they are the rows without and with pictures.
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
