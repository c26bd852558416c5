"""MMPareto: min-norm in conflict, equal otherwise, never shorter than the sum (ICML 2024, arXiv 2405.17730)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from marslora.core.arrays import Array
from marslora.gradients._base import AbstractCombiner, Block, Weights, lowest_cosine
from marslora.gradients._min_norm import min_norm_weights


class MMPareto(AbstractCombiner):
    """``h = sum_k K w_k g_k`` with equal weights, or with min-norm weights if the cosine of two gradients is 0 or less.

    Then every tensor of ``h`` that is shorter than that tensor of the plain sum is made as long, and all of them are
    multiplied by ``gamma``. The paper's two are the multimodal and the unimodal loss of an encoder.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractCombiner.Config):
        """The options of every combiner, and the two numbers of the method."""

        gamma: Annotated[float, Field(gt=0)] = 1.5
        """Factor on the combined gradient."""
        floor: Annotated[float, Field(ge=0, lt=0.5)] = 0.001
        """Smallest weight in a conflict, of weights that add up to 1."""

    config: Config

    def weigh(self, block: Block) -> Weights:
        """Return the weights of every tensor, (P, K)."""
        number = len(block.objectives)
        conflict = lowest_cosine(block)[0] <= 0
        weights_K = np.full(number, 1.0 / number)
        if conflict:
            weights_K = np.clip(min_norm_weights(block.gram_KK), self.config.floor, 1.0 - self.config.floor)
        weights_K = number * weights_K
        wanted_P, found_P = _norms(block, np.ones(number)), _norms(block, weights_K)
        stretch_P = np.where(found_P > 0, np.maximum(1.0, wanted_P / np.where(found_P > 0, found_P, 1.0)), 1.0)
        return Weights(self.config.gamma * stretch_P[:, None] * weights_K, "conflict" if conflict else "equal")


def _norms(block: Block, weights_K: Array) -> Array:
    """The norm of every tensor of the combination."""
    squares_P = np.einsum("j,pjk,k->p", weights_K, block.tensors_PKK, weights_K)
    norms_P: Array = np.sqrt(np.maximum(squares_P, 0.0))
    return norms_P
