"""LoRA trained with MARS-M: Muon with variance-reduced momentum."""

from __future__ import annotations

from typing import Any

from marslora.core.comparison import Recipe


def mars_m(**options: Any) -> Recipe:
    """The approximate MARS-M with the paper's momentum 0.95 and gamma 0.025; options are those of `mars_m`."""
    return Recipe(
        source="Liu et al. 2025, arXiv 2510.21800",
        ranks=16,
        training={"optimizer": {"name": "mars_m", "options": options}},
        defaults={"learning_rate": 5e-4},
    )
