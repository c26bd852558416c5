"""MMPareto: min-norm in conflict, equal otherwise, never shorter than the sum (ICML 2024, arXiv 2405.17730)."""

from __future__ import annotations

import numpy as np

from marslora.core.arrays import Array
from marslora.core.errors import ConfigError
from marslora.gradients._base import AbstractCombiner, Block, Granularity, Weights, lowest_cosine
from marslora.gradients._min_norm import min_norm_weights


class MMPareto(AbstractCombiner):
    """``h = sum_k K w_k g_k`` with equal weights, or min-norm weights where two gradients point apart.

    Then every tensor of ``h`` that is shorter than that tensor of the plain sum is made as long, and all of them are
    multiplied by ``gamma``. The paper's two are the multimodal and the unimodal loss of an encoder.
    """

    def __init__(self, *, gamma: float = 1.5, floor: float = 0.001, blocks: Granularity = "global", modulate: str = ""):
        """Set the numbers of the method.

        Args:
            gamma: Factor on the result.
            floor: Smallest weight in conflict, of weights that sum to 1.
            blocks: As for every combiner.
            modulate: As for every combiner.
        """
        super().__init__(blocks=blocks, modulate=modulate)
        if gamma <= 0 or not 0 <= floor < 0.5:
            raise ConfigError(f"`gamma` must be above 0 and `floor` in [0, 0.5), found {gamma} and {floor}.")
        self.gamma, self.floor = gamma, floor

    def weigh(self, block: Block) -> Weights:
        """Weights for every tensor."""
        number = len(block.objectives)
        conflict = lowest_cosine(block)[0] <= 0
        weights_K = np.full(number, 1.0 / number)
        if conflict:
            weights_K = np.clip(min_norm_weights(block.gram_KK), self.floor, 1.0 - self.floor)
        weights_K = number * weights_K
        wanted_P, found_P = _norms(block, np.ones(number)), _norms(block, weights_K)
        stretch_P = np.where(found_P > 0, np.maximum(1.0, wanted_P / np.where(found_P > 0, found_P, 1.0)), 1.0)
        return Weights(self.gamma * stretch_P[:, None] * weights_K, "conflict" if conflict else "equal")


def _norms(block: Block, weights_K: Array) -> Array:
    """The norm of every tensor of the combination."""
    squares_P = np.einsum("j,pjk,k->p", weights_K, block.tensors_PKK, weights_K)
    norms_P: Array = np.sqrt(np.maximum(squares_P, 0.0))
    return norms_P
