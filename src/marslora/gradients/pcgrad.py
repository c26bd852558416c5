"""PCGrad: from each gradient, what points against another is taken away (arXiv 2001.06782)."""

from __future__ import annotations

from typing import Any

import numpy as np

from marslora.core.arrays import Array
from marslora.gradients._base import AbstractCombiner, Block, Granularity, Weights


class PCGrad(AbstractCombiner):
    """``g_i <- g_i - <g_i, g_j>/|g_j|^2 g_j`` for every j against which it points, in random order; then the sum.

    With two objectives the order does not matter. State: how many draws there were.
    """

    def __init__(self, *, seed: int = 0, blocks: Granularity = "global", modulate: str = ""):
        """Set the seed of the order; ``blocks`` and ``modulate`` are those of every combiner."""
        super().__init__(blocks=blocks, modulate=modulate)
        self.seed, self.draws = seed, 0

    def weigh(self, block: Block) -> Weights:
        """The weights of the projected gradients' sum."""
        gram_KK = block.gram_KK
        rng = np.random.default_rng((self.seed, self.draws))
        self.draws += 1
        number = len(gram_KK)
        rows = [_projected(gram_KK, index, rng.permutation(number)) for index in range(number)]
        return Weights(np.sum(rows, axis=0), "projected" if (gram_KK < 0).any() else "sum")

    def state_dict(self) -> dict[str, Any]:
        """The number of draws."""
        return {"draws": self.draws}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the next draw."""
        self.draws = int(state["draws"])


def _projected(gram_KK: Array, index: int, order: np.ndarray) -> Array:
    weights_K: Array = np.eye(len(gram_KK))[index]
    for other in order:
        product = float(weights_K @ gram_KK[:, other])
        if other != index and product < 0:
            weights_K[other] -= product / gram_KK[other, other]
    return weights_K
