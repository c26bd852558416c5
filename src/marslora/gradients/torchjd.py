"""Any weighting of TorchJD by its name: UPGrad, AlignedMTL, DualProj and others (pip install 'marslora[pareto]')."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from marslora.core.errors import ConfigError, MissingDependencyError
from marslora.core.optional import need
from marslora.gradients._base import AbstractCombiner, Block, Weights


class TorchJD(AbstractCombiner):
    """``torchjd.aggregation.<aggregator>Weighting`` on the matrix of inner products.

    Only aggregators that are weightings of inner products can be used. Some need the package of a solver.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractCombiner.Config):
        """The options of every combiner, and those of the aggregator."""

        aggregator: str = "UPGrad"
        """Name of the aggregator in TorchJD, without ``Weighting``."""
        settings: dict[str, Any] | None = None
        """Keyword arguments of the aggregator."""

    config: Config

    def __init__(self, /, **options: Any) -> None:
        super().__init__(**options)
        aggregator, settings = self.config.aggregator, self.config.settings
        module = need("torchjd.aggregation", "pareto")
        known = sorted(name.removesuffix("Weighting") for name in dir(module) if name.endswith("Weighting"))
        if aggregator not in known or not aggregator:
            raise ConfigError(f"`aggregator` must be one of {list(filter(None, known))}, found {aggregator!r}.")
        try:
            self._weighting = getattr(module, f"{aggregator}Weighting")(**(settings or {}))
        except ImportError as error:
            raise MissingDependencyError(f"TorchJD's {aggregator} needs more packages: {error}") from None

    def weigh(self, block: Block) -> Weights:
        """Return the weights that the named weighting of TorchJD gives."""
        found = self._weighting(torch.from_numpy(block.gram_KK))
        return Weights(found.detach().double().numpy(), self.config.aggregator)
