"""Keep what a run had trained at its best validation point, in memory and in every checkpoint."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from marslora.methods import AbstractChange

BEST = "best_state.safetensors"
"""The file of a Trainer checkpoint that holds the trained tensors as they were at the best point."""


class BestPoint:
    """The trained tensors of a change at the best point of its run so far."""

    def __init__(self, change: AbstractChange):
        self.change = change
        self.state: dict[str, Tensor] = {}
        """The tensors by name; empty until the first point."""

    def take(self) -> None:
        """Copy the change's current state: this is the best point so far."""
        self.state = {name: tensor.clone() for name, tensor in self.change.state().items()}

    def restore(self) -> None:
        """Give the change the state of the best point."""
        self.change.load_state(self.state)

    def save(self, checkpoint: Path) -> None:
        """Write the state into a checkpoint, if there is one."""
        if self.state:
            save_file(self.state, checkpoint / BEST)

    def load(self, checkpoint: Path) -> None:
        """Read the state from a checkpoint, if it holds one."""
        if (checkpoint / BEST).exists():
            self.state = load_file(checkpoint / BEST)
