"""Pareto LoRA: min-norm in conflict, the weaker raised in imbalance, the sum otherwise (arXiv 2606.17296)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from marslora.core.arrays import Array
from marslora.core.errors import ConfigError
from marslora.gradients._base import AbstractCombiner, Block, Granularity, Weights, lowest_cosine
from marslora.gradients._min_norm import min_norm_weights

Ratio = Literal["first_over_second", "max_over_min"]
Rescale = Literal["none", "sum_norm"]


class ParetoLora(AbstractCombiner):
    """Three cases, decided for each block by cosine and ratio of norms.

    ``conflict`` (cosine < 0): the shortest convex combination. ``imbalance`` (ratio > tau): every gradient is scaled
    to the norm of the strongest, then added. ``sum`` otherwise. As in the paper, only the lower third of the layers
    is modulated and the rest is summed; the whole update need then not be a descent direction of both losses.

    The weight of the first gradient in conflict is ``<g_2 - g_1, g_2> / |g_1 - g_2|^2``, clipped to [0, 1]. The same
    fraction with the indices exchanged, as it is sometimes printed, belongs to the second and favours the stronger.
    """

    def __init__(
        self,
        *,
        tau: float = 0.5,
        ratio: Ratio = "first_over_second",
        max_scale: float | None = None,
        conflict_rescale: Rescale = "none",
        blocks: Granularity = "thirds",
        modulate: str = "lower$",
    ):
        """Set the numbers of the method.

        Args:
            tau: The ratio above which gradients count as out of balance.
            ratio: ``first_over_second``, the paper's with text named first: with tau 0.5 nearly every step without
                conflict in which text is at least half as strong. ``max_over_min`` treats both alike; tau >= 1.
            max_scale: The largest factor on a gradient; None, the paper's: no limit.
            conflict_rescale: ``sum_norm`` gives the combination in conflict, which is shorter than every gradient,
                the norm of the plain sum.
            blocks: As for every combiner.
            modulate: As for every combiner.
        """
        super().__init__(blocks=blocks, modulate=modulate)
        if ratio not in ("first_over_second", "max_over_min") or conflict_rescale not in ("none", "sum_norm"):
            raise ConfigError(
                "`ratio` must be first_over_second or max_over_min and `conflict_rescale` none or sum_norm, "
                f"found {ratio!r} and {conflict_rescale!r}."
            )
        if tau < (1 if ratio == "max_over_min" else 0):
            raise ConfigError(f"`tau` must be at least 1 for max_over_min and at least 0 else, found {tau}.")
        self.tau, self.ratio, self.conflict_rescale = tau, ratio, conflict_rescale
        self.max_scale = np.inf if max_scale is None else max_scale

    def weigh(self, block: Block) -> Weights:
        """Weights by the case that applies."""
        if lowest_cosine(block)[0] < 0:
            return Weights(self._shortest(block.gram_KK), "conflict")
        if self._ratio(block) > self.tau:
            return Weights(np.minimum(block.norms_K.max() / block.norms_K, self.max_scale), "imbalance")
        return Weights(np.ones(len(block.objectives)), "sum")

    def _ratio(self, block: Block) -> float:
        norms_K = block.norms_K
        if self.ratio == "max_over_min":
            return float(norms_K.max() / norms_K.min())
        if len(norms_K) > 2:
            raise ConfigError(
                f"`ratio` first_over_second compares two objectives, found {list(block.objectives)}. "
                "Set `ratio` to max_over_min and `tau` to 1 or more."
            )
        return float(norms_K[0] / norms_K[1])

    def _shortest(self, gram_KK: Array) -> Array:
        weights_K = min_norm_weights(gram_KK)
        found, wanted = float(weights_K @ gram_KK @ weights_K), float(gram_KK.sum())
        if self.conflict_rescale == "none" or found <= 0 or wanted <= 0:
            return weights_K
        scaled_K: Array = weights_K * min(np.sqrt(wanted / found), self.max_scale)
        return scaled_K
