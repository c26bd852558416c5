"""GradNorm: loss weights that learn to keep all objectives' training rates alike (arXiv 1711.02257)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from marslora.core.arrays import Array
from marslora.gradients._base import AbstractCombiner, Block, Weights

BETAS, EPS = (0.9, 0.999), 1e-8


class GradNorm(AbstractCombiner):
    """``g = sum_k w_k g_k`` with w, K times a softmax, moved towards ``w_k n_k = mean(w n) (rate_k)^alpha``.

    The rate of an objective is its loss over its first loss, relative to the others: slower objectives get larger
    weights. The weights start at 1 and follow Adam on ``sum_k |w_k n_k - target_k|``. Losses must be positive.
    State, for every block: first losses, logits and their moments.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractCombiner.Config):
        """The options of every combiner, and the two numbers of the method."""

        alpha: Annotated[float, Field(ge=0)] = 1.5
        """How strongly the weights of objectives that train slowly are raised; 0 keeps the norms equal."""
        lr: Annotated[float, Field(gt=0)] = 0.025
        """Learning rate of the weights' logits."""

    config: Config

    def __init__(self, /, **options: Any) -> None:
        super().__init__(**options)
        self._memory: dict[str, dict[str, dict[str, float]]] = {}

    def weigh(self, block: Block) -> Weights:
        """Return the weights of this step, then update the logits."""
        known = self._memory.setdefault(block.name, {})
        for name, loss in zip(block.objectives, block.losses_K, strict=True):
            known.setdefault(name, {"first": float(loss), "logit": 0.0, "m": 0.0, "v": 0.0, "step": 0.0})
        mine = [known[name] for name in block.objectives]
        weights_K = len(mine) * _softmax(np.array([each["logit"] for each in mine]))
        rates_K = np.maximum(block.losses_K, 1e-12) / np.maximum([each["first"] for each in mine], 1e-12)
        slopes_K = _slopes(weights_K, block.norms_K, (rates_K / rates_K.mean()) ** self.config.alpha)
        for each, slope in zip(mine, slopes_K, strict=True):
            _adam(each, float(slope), self.config.lr)
        return Weights(weights_K, "learned")

    def state_dict(self) -> dict[str, Any]:
        """Return the first losses, the logits and their moments, by block and objective."""
        return {block: {name: dict(each) for name, each in known.items()} for block, known in self._memory.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._memory = {block: {name: dict(each) for name, each in known.items()} for block, known in state.items()}


def _softmax(logits_K: Array) -> Array:
    powers_K = np.exp(logits_K - logits_K.max())
    found: Array = powers_K / powers_K.sum()
    return found


def _slopes(weights_K: Array, norms_K: Array, rates_K: Array) -> Array:
    """The derivative of ``sum |w n - target|`` with respect to the logits, with constant targets as in the paper."""
    sizes_K = weights_K * norms_K
    by_weight_K = np.sign(sizes_K - sizes_K.mean() * rates_K) * norms_K
    found: Array = weights_K * (by_weight_K - (by_weight_K * weights_K).sum() / len(weights_K))
    return found


def _adam(memory: dict[str, float], slope: float, lr: float) -> None:
    memory["step"] += 1
    memory["m"] = BETAS[0] * memory["m"] + (1 - BETAS[0]) * slope
    memory["v"] = BETAS[1] * memory["v"] + (1 - BETAS[1]) * slope**2
    mean = memory["m"] / (1 - BETAS[0] ** memory["step"])
    spread = memory["v"] / (1 - BETAS[1] ** memory["step"])
    memory["logit"] -= lr * mean / (spread**0.5 + EPS)
