"""Sum: ordinary training, while every objective's gradient is logged."""

from __future__ import annotations

import numpy as np

from marslora.gradients._base import AbstractCombiner, Block, Weights


class Sum(AbstractCombiner):
    """``g = sum_k g_k``, the gradient of the summed losses."""

    def weigh(self, block: Block) -> Weights:
        """Return a weight of one for every objective."""
        return Weights(np.ones(len(block.objectives)), "sum")
