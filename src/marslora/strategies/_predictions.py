"""Predicted losses of all candidates: what both laws hand to the choice."""

from __future__ import annotations

from dataclasses import dataclass

from marslora.core.arrays import Array

OWN_SHARE = 0.5
"""How much of a run's departure from a law is taken for the allocation's own rather than for the luck of its seed.

With one seed for each allocation the two cannot be told apart, so each gets half.
"""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted losses of C candidates in a full run, whose best point is kept."""

    loss_C: Array
    """Nats per answer token."""
    loss_SC: Array
    """The same in S draws of everything that is uncertain."""
    resolution: float | None
    """Expected difference, in nats, above which two candidates are never tied: the departure of a typical run from the
    law. None if the draws alone say what is tied."""
