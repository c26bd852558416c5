"""AsymLoRA: one shared A and several B, weighted by a router in each feed-forward block or chosen by the row's task."""

from __future__ import annotations

from typing import Any

from marslora.core.comparison import Recipe


def asymlora(form: str = "mixture", **options: Any) -> Recipe:
    """The released settings: three heads in feed-forward blocks, LoRA in attention, the projector's rate a tenth.

    ``form="task"`` is the paper's other form, in which a column of the rows names the task. Other options are the
    adapter's.
    """
    return Recipe(
        source="Wei et al. 2025, arXiv 2502.20035",
        ranks=32,
        training={"adapter": {"name": "asymlora", "options": {"form": form, **options}}},
        defaults={"learning_rate": 2e-4, "alpha_over_rank": 2.0, "dropout": 0.05},
        rate_factors={"projector": 0.1},
    )
