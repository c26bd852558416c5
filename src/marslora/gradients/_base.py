"""The interface of combiners: what one sees of the objectives' gradients, and the weights that it returns."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marslora.core.arrays import Array
from marslora.core.errors import ConfigError
from marslora.core.plugin_options import AbstractPlugin

Granularity = Literal["global", "thirds", "layers", "tensors"]
"""Which tensors share their weights: all, a third of a stack of layers, a layer, or each tensor by itself."""


@dataclass(frozen=True)
class Block:
    """Inner products of the gradients of K objectives over one block of parameters; P tensors belong to it."""

    name: str
    objectives: tuple[str, ...]
    """The objectives that have a gradient in this block; at least two."""
    tensors_PKK: Array
    """``<g_j, g_k>`` over each tensor separately, (P, K, K)."""
    losses_K: Array
    """The losses of the objectives over the whole optimizer step, (K,)."""

    @property
    def gram_KK(self) -> Array:
        """``<g_j, g_k>`` over the whole block."""
        total_KK: Array = self.tensors_PKK.sum(0)
        return total_KK

    @property
    def norms_K(self) -> Array:
        """Return the norm of each objective's gradient, all above 0."""
        return np.sqrt(np.diagonal(self.gram_KK))

    @property
    def cosines_KK(self) -> Array:
        """Return the cosine between each two gradients."""
        return np.clip(self.gram_KK / np.outer(self.norms_K, self.norms_K), -1.0, 1.0)

    def only(self, keep_K: NDArray[np.bool_]) -> Block:
        """Return the block with only the objectives that are True in ``keep_K``."""
        return replace(
            self,
            objectives=tuple(name for name, keep in zip(self.objectives, keep_K, strict=True) if keep),
            tensors_PKK=self.tensors_PKK[:, keep_K][:, :, keep_K],
            losses_K=self.losses_K[keep_K],
        )


class Weights(NamedTuple):
    """The combined gradient as a weighted sum: ``g = sum_k weights_k g_k``."""

    weights: Array
    """(K,), or (P, K) if each tensor of the block has its own weights."""
    case: str
    """The case of the rule that applied, for the log."""


class AbstractCombiner(AbstractPlugin, ABC):
    """Combines the gradients of several objectives into one, block by block.

    A combiner sees inner products only and returns weights of the gradients. A step therefore costs one transfer of
    ``blocks x K x K`` numbers, and two objectives need no solver.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractPlugin.Config):
        """The options of every combiner: which blocks of the model are combined separately."""

        blocks: Granularity = "global"
        """One weight for the whole model, for each third of a stack of layers (``...lower``, ``...middle``,
        ``...upper``, ``other`` for what is in no stack), for each layer, or for each tensor."""
        modulate: str = ""
        """A regular expression. Blocks whose name does not match are summed without weights. Empty: every block
        matches."""

        def __post_init__(self) -> None:
            try:
                re.compile(self.modulate)
            except re.error as error:
                raise ConfigError(
                    f"`modulate` must be a regular expression, found {self.modulate!r}: {error}. "
                    "Use e.g. `lower$`, or leave it empty for every block."
                ) from None

    config: Config

    def modulates(self, block: str) -> bool:
        """Whether this combiner weights the block; otherwise the gradients of the block are summed."""
        return re.search(self.config.modulate, block) is not None

    @abstractmethod
    def weigh(self, block: Block) -> Weights:
        """Return the weights of a block's objectives. Called once a step for every modulated block, in fixed order."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a continued run must know, as JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Raises `ConfigError` if there is anything to restore."""
        if state:
            raise ConfigError(
                f"{type(self).__name__} keeps no state, found {sorted(state)}: the checkpoint is of another combiner. "
                "Use that combiner, or start the run anew."
            )


def lowest_cosine(block: Block) -> tuple[float, int, int]:
    """Return the smallest cosine between two gradients, and the indices of their objectives."""
    rows, columns = np.triu_indices(len(block.objectives), 1)
    cosines = block.cosines_KK[rows, columns]
    at = int(cosines.argmin())
    return float(cosines[at]), int(rows[at]), int(columns[at])
