"""What a trial is told to train."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Suggestion:
    """What a trial should train."""

    ranks: dict[str, int]
    """The rank of every part; 0 leaves a part as it is."""
    learning_rate: float | None
    """The learning rate of all parts without one of their own; None: it is not searched, use yours."""
    part_learning_rates: dict[str, float]
    """Learning rates of single parts."""
    examples: int
    """Train until this many examples were seen, including those of the trial that is continued."""
    rows: int
    """Cycle through the first training rows, this many of them, in one order for all trials."""
    seed: int
    """Seed of the initialisation."""
    resume: int | None
    """Number of the trial whose weights and optimizer state this one continues; None for a new run."""
    is_final: bool
    """Whether this is the final run: the chosen ranks, trained to the end."""
