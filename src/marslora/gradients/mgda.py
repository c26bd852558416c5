"""MGDA: the shortest convex combination, along which no objective gets worse (Desideri 2012; arXiv 1810.04650)."""

from __future__ import annotations

from marslora.gradients._base import AbstractCombiner, Block, Weights
from marslora.gradients._min_norm import min_norm_weights


class MGDA(AbstractCombiner):
    """``min |sum_k w_k g_k|`` over the simplex. Two objectives: ``w_1 = clip(<g_2 - g_1, g_2> / |g_1 - g_2|^2)``.

    If the shortest gradient is the shortest combination, it is used alone (case ``one``).
    """

    def weigh(self, block: Block) -> Weights:
        """Return the weights of the shortest convex combination."""
        weights_K = min_norm_weights(block.gram_KK)
        return Weights(weights_K, "one" if weights_K.max() > 1 - 1e-12 else "between")
