"""IMTL-G: the combination with equal projections on all gradients (Liu et al., ICLR 2021)."""

from __future__ import annotations

import numpy as np

from marslora.gradients._base import AbstractCombiner, Block, Weights


class IMTLG(AbstractCombiner):
    """``<g, g_k / n_k>`` the same for every k, weights that sum to 1: ``(n_2 g_1 + n_1 g_2) / (n_1 + n_2)`` for two.

    With more than two some weights can be negative. Gradients that are all parallel have no such combination but
    zero, and get equal weights (case ``parallel``).
    """

    def weigh(self, block: Block) -> Weights:
        """Return the weights ``pinv(gram) n``, scaled to add up to 1."""
        norms_K = block.norms_K
        if len(norms_K) == 2:
            return Weights(norms_K[::-1] / norms_K.sum(), "equal projections")
        weights_K = np.linalg.pinv(block.cosines_KK, hermitian=True).sum(1) / norms_K
        total = weights_K.sum()
        if abs(total) * norms_K.max() < 1e-9:
            return Weights(np.full(len(norms_K), 1.0 / len(norms_K)), "parallel")
        return Weights(weights_K / total, "equal projections")
