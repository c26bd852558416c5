"""Pareto LoRA: min-norm in conflict, the weaker scaled up in imbalance, the sum otherwise (arXiv 2606.17296)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

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

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractCombiner.Config):
        """When gradients count as out of balance, and what is rescaled. Defaults are those of the paper."""

        tau: Annotated[float, Field(ge=0)] = 0.5
        """The ratio of norms above which gradients count as out of balance."""
        ratio: Ratio = "first_over_second"
        """``first_over_second`` is the paper's ratio, with text as the first objective: with tau 0.5 it exceeds tau in
        nearly every step without conflict in which text is at least half as strong. ``max_over_min`` treats both
        objectives alike and needs a tau of 1 or more."""
        max_scale: float | None = None
        """The largest factor on a gradient; null: no limit."""
        conflict_rescale: Rescale = "none"
        """``sum_norm`` scales the combination in a conflict, which is shorter than every gradient, to the norm of the
        sum."""
        blocks: Granularity = "thirds"
        modulate: str = "lower$"

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.ratio == "max_over_min" and self.tau < 1:
                raise ConfigError(
                    f"`tau` must be at least 1 for the ratio max_over_min, found {self.tau}. "
                    "Raise it, or set `ratio` to first_over_second."
                )

    config: Config

    @property
    def max_scale(self) -> float:
        """The largest factor on a gradient, infinite if there is no limit."""
        return np.inf if self.config.max_scale is None else self.config.max_scale

    def weigh(self, block: Block) -> Weights:
        """Return the weights of the case that applies."""
        if lowest_cosine(block)[0] < 0:
            return Weights(self._shortest(block.gram_KK), "conflict")
        if self._ratio(block) > self.config.tau:
            return Weights(np.minimum(block.norms_K.max() / block.norms_K, self.max_scale), "imbalance")
        return Weights(np.ones(len(block.objectives)), "sum")

    def _ratio(self, block: Block) -> float:
        norms_K = block.norms_K
        if self.config.ratio == "max_over_min":
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
        if self.config.conflict_rescale == "none" or found <= 0 or wanted <= 0:
            return weights_K
        scaled_K: Array = weights_K * min(np.sqrt(wanted / found), self.max_scale)
        return scaled_K
