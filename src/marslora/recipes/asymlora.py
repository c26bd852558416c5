"""AsymLoRA: one shared A, several B; weighed by a router in each feed-forward block, or chosen by the row's task."""

from __future__ import annotations

from typing import Any

from marslora.core.comparison import Recipe


def asymlora(form: str = "mixture", **options: Any) -> Recipe:
    """As released: three heads in feed-forward blocks, plain LoRA in attention, the projector at a tenth of the rate.

    ``form="task"`` is the paper's other form, whose rows name their task in a column. Other options are the adapter's.
    """
    return Recipe(
        source="Wei et al. 2025, arXiv 2502.20035",
        ranks=32,
        training={"adapter": {"name": "asymlora", "options": {"form": form, **options}}},
        defaults={"learning_rate": 2e-4, "alpha_over_rank": 2.0, "dropout": 0.05},
        rate_factors={"projector": 0.1},
    )
