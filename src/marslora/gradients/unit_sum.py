"""Sum of directions: every gradient scaled to the mean norm; the control for methods that balance norms."""

from __future__ import annotations

from marslora.gradients._base import AbstractCombiner, Block, Weights


class UnitSum(AbstractCombiner):
    """``g = mean(n) sum_k g_k / n_k``: only the balance of norms, without anything else that a method may do."""

    def weigh(self, block: Block) -> Weights:
        """Return the mean norm over the norm of each gradient."""
        return Weights(block.norms_K.mean() / block.norms_K, "directions")
