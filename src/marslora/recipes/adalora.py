"""AdaLoRA: starts at 1.5 times the rank and prunes the least important directions over all linears."""

from __future__ import annotations

from typing import Any

from marslora.core.comparison import Recipe


def adalora(**options: Any) -> Recipe:
    """From rank 12 to 8 on average, as in the paper. Parameters are counted before pruning.

    Options are the adapter's.
    """
    return Recipe(
        source="Zhang et al. 2023, arXiv 2303.10512",
        ranks=8,
        training={"adapter": {"name": "adalora", "options": options}},
        defaults={"learning_rate": 5e-4},
    )
