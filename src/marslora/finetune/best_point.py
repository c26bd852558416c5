"""The best point of a run so far, in memory and in every checkpoint."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from marslora.methods import AbstractChange

BEST = "best_state.safetensors"
"""In a Trainer checkpoint: what was trained, as it was at the best point."""


class BestPoint:
    """What a change was at the best point of its run."""

    def __init__(self, change: AbstractChange):
        self.change = change
        self.state: dict[str, Tensor] = {}
        """Empty until there is such a point."""

    def take(self) -> None:
        """This is the best point."""
        self.state = {name: tensor.clone() for name, tensor in self.change.state().items()}

    def restore(self) -> None:
        """Make the change what it was there."""
        self.change.load_state(self.state)

    def save(self, checkpoint: Path) -> None:
        """Write it into a checkpoint."""
        if self.state:
            save_file(self.state, checkpoint / BEST)

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint."""
        if (checkpoint / BEST).exists():
            self.state = load_file(checkpoint / BEST)
