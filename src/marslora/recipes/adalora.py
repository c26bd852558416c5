"""AdaLoRA: begins with half as much rank again and cuts the least important directions of all linears."""

from __future__ import annotations

from typing import Any

from marslora.core.comparison import Recipe


def adalora(**options: Any) -> Recipe:
    """From rank 12 to 8 on average, as the paper does; options are the adapter's. Parameters count before the cut."""
    return Recipe(
        source="Zhang et al. 2023, arXiv 2303.10512",
        ranks=8,
        training={"adapter": {"name": "adalora", "options": options}},
        defaults={"learning_rate": 5e-4},
    )
