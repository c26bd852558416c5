"""Nash-MTL: the bargaining solution, which does not depend on the gradients' norms (arXiv 2202.01017)."""

from __future__ import annotations

import numpy as np

from marslora.core.arrays import Array
from marslora.gradients._base import AbstractCombiner, Block, Weights
from marslora.gradients._min_norm import min_norm_weights

OPPOSED = 1e-9
"""If the smallest |g|^2 of a convex combination of unit gradients is below this, no direction helps all of them."""


class NashMTL(AbstractCombiner):
    """Weights w > 0 with ``<g, g_k> = 1 / w_k`` for every k. For two: ``w_k = 1 / (n_k sqrt(1 + cosine))``.

    The norm of ``g`` is always sqrt(K), whatever the norms of the gradients. If gradients are exactly opposed, there is
    no solution, and the shortest combination is used (case ``opposed``).
    """

    def weigh(self, block: Block) -> Weights:
        """Return the weights of the Nash bargaining solution."""
        cosines_KK, norms_K = block.cosines_KK, block.norms_K
        shortest_K = min_norm_weights(cosines_KK)
        if shortest_K @ cosines_KK @ shortest_K < OPPOSED:
            return Weights(min_norm_weights(block.gram_KK), "opposed")
        if len(norms_K) == 2:
            return Weights(1.0 / (norms_K * np.sqrt(1.0 + cosines_KK[0, 1])), "agreed")
        return Weights(bargain(cosines_KK) / norms_K, "agreed")


def bargain(gram_KK: Array, tolerance: float = 1e-12, max_steps: int = 200) -> Array:
    """The w > 0 with ``gram w = 1 / w``: the minimum of ``w^T gram w / 2 - sum log w``, by damped Newton steps.

    The function is convex and self-concordant, so a step of ``1 / (1 + decrement)`` stays inside and converges.
    """
    weights_K = 1.0 / np.sqrt(np.diagonal(gram_KK))
    for _ in range(max_steps):
        slope_K = gram_KK @ weights_K - 1.0 / weights_K
        step_K = np.linalg.solve(gram_KK + np.diag(weights_K**-2), -slope_K)
        decrement = max(-float(slope_K @ step_K), 0.0) ** 0.5
        weights_K = weights_K + step_K / (1.0 + decrement if decrement > 0.25 else 1.0)
        if decrement < tolerance:
            break
    return weights_K
