"""The best point of a run so far, in memory and in every checkpoint."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from marslora.adapters._method import AbstractChange

BEST = "best_state.safetensors"
"""In a Trainer checkpoint: what was trained, as it was at the best point."""


class Best:
    """What a change was at the best point of its run; until there is one, as it began."""

    def __init__(self, change: AbstractChange):
        self.change = change
        self.state = self._now()

    def take(self) -> None:
        """This is the best point."""
        self.state = self._now()

    def restore(self) -> None:
        """Make the change what it was there."""
        self.change.load_state(self.state)

    def save(self, checkpoint: Path) -> None:
        """Write it into a checkpoint."""
        save_file(self.state, checkpoint / BEST)

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint."""
        self.state = load_file(checkpoint / BEST)

    def _now(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.change.state().items()}
