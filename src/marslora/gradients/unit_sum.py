"""Sum of directions: every gradient at the mean norm; the plain control for methods that balance norms."""

from __future__ import annotations

from marslora.gradients._base import AbstractCombiner, Block, Weights


class UnitSum(AbstractCombiner):
    """``g = mean(n) sum_k g_k / n_k``: what is left of a method when only its balancing of norms is kept."""

    def weigh(self, block: Block) -> Weights:
        """Mean norm over own norm."""
        return Weights(block.norms_K.mean() / block.norms_K, "directions")
