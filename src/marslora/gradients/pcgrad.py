"""PCGrad: each gradient without its components that oppose other gradients (arXiv 2001.06782)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from marslora.core.arrays import Array
from marslora.gradients._base import AbstractCombiner, Block, Weights


class PCGrad(AbstractCombiner):
    """``g_i <- g_i - <g_i, g_j>/|g_j|^2 g_j`` for every j with ``<g_i, g_j> < 0``, in random order; then the sum.

    With two objectives the order does not matter. State: the number of orders drawn.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractCombiner.Config):
        """The options of every combiner, and the seed of the order."""

        seed: int = 0
        """Seed of the random order in which a gradient is projected on the others."""

    config: Config

    def __init__(self, /, **options: Any) -> None:
        super().__init__(**options)
        self.draws = 0

    def weigh(self, block: Block) -> Weights:
        """Return the weights of the sum of the projected gradients."""
        gram_KK = block.gram_KK
        rng = np.random.default_rng((self.config.seed, self.draws))
        self.draws += 1
        number = len(gram_KK)
        rows = [_projected(gram_KK, index, rng.permutation(number)) for index in range(number)]
        return Weights(np.sum(rows, axis=0), "projected" if (gram_KK < 0).any() else "sum")

    def state_dict(self) -> dict[str, Any]:
        """Return how many orders were drawn."""
        return {"draws": self.draws}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the next draw."""
        self.draws = int(state["draws"])


def _projected(gram_KK: Array, index: int, order: np.ndarray) -> Array:
    weights_K: Array = np.eye(len(gram_KK))[index]
    for other in order:
        product = float(weights_K @ gram_KK[:, other])
        if other != index and product < 0:
            weights_K[other] -= product / gram_KK[other, other]
    return weights_K
