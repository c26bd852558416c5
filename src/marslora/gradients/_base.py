"""What a combiner sees of the objectives' gradients, and what it answers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marslora.core.arrays import Array
from marslora.core.errors import ConfigError

Granularity = Literal["global", "thirds", "layers", "tensors"]
GRANULARITIES = ("global", "thirds", "layers", "tensors")


@dataclass(frozen=True)
class Block:
    """Inner products of the gradients of K objectives over one block of parameters; P tensors belong to it."""

    name: str
    objectives: tuple[str, ...]
    """Those that have a gradient here; at least two."""
    tensors_PKK: Array
    """``<g_j, g_k>`` over each tensor alone."""
    losses_K: Array
    """The objectives' losses, of the whole optimizer step."""

    @property
    def gram_KK(self) -> Array:
        """``<g_j, g_k>`` over the whole block."""
        total_KK: Array = self.tensors_PKK.sum(0)
        return total_KK

    @property
    def norms_K(self) -> Array:
        """Norm of every objective's gradient; above 0."""
        return np.sqrt(np.diagonal(self.gram_KK))

    @property
    def cosines_KK(self) -> Array:
        """Cosine between every two gradients."""
        return np.clip(self.gram_KK / np.outer(self.norms_K, self.norms_K), -1.0, 1.0)

    def only(self, keep_K: NDArray[np.bool_]) -> Block:
        """The block as if the other objectives had never been named."""
        return replace(
            self,
            objectives=tuple(name for name, keep in zip(self.objectives, keep_K, strict=True) if keep),
            tensors_PKK=self.tensors_PKK[:, keep_K][:, :, keep_K],
            losses_K=self.losses_K[keep_K],
        )


class Weights(NamedTuple):
    """The combined gradient as a weighted sum: ``g = sum_k weights_k g_k``."""

    weights: Array
    """(K,), or (P, K) where tensors of the block have weights of their own."""
    case: str
    """Which rule applied, for the log."""


class AbstractCombiner(ABC):
    """Turns the gradients of several objectives into one, block by block.

    Every kind is a function of inner products; what it returns is a combination of the gradients themselves. So a
    step costs one transfer of ``blocks x K x K`` numbers, and two objectives need no solver.
    """

    def __init__(self, *, blocks: Granularity = "global", modulate: str = ""):
        """Choose which blocks of the model are combined separately.

        Args:
            blocks: One weight for the whole model, for each third of a stack of layers (``...lower``,
                ``...middle``, ``...upper``, ``other`` for what is in no stack), for each layer, or for each tensor.
            modulate: A regular expression: blocks whose name does not match are summed plainly. Empty: every block.
        """
        if blocks not in GRANULARITIES:
            raise ConfigError(f"`blocks` must be one of {list(GRANULARITIES)}, found {blocks!r}.")
        try:
            self._modulated = re.compile(modulate)
        except re.error as error:
            raise ConfigError(f"`modulate` {modulate!r} must be a regular expression: {error}.") from None
        self.blocks = blocks

    def modulates(self, block: str) -> bool:
        """Whether this combiner decides about the block; it is summed plainly otherwise."""
        return self._modulated.search(block) is not None

    @abstractmethod
    def weigh(self, block: Block) -> Weights:
        """The weights of a block's objectives. Called once a step for every modulated block, in a fixed order."""

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
    """The smallest cosine between two gradients, and whose they are."""
    rows, columns = np.triu_indices(len(block.objectives), 1)
    cosines = block.cosines_KK[rows, columns]
    at = int(cosines.argmin())
    return float(cosines[at]), int(rows[at]), int(columns[at])
