"""Compare what the storage holds of a run with the run's own checkpoint, which is the truth."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from marslora.core.spec import MemberSpec

STATE_FILE = "state.json"
"""The file of a checkpoint that holds its member as ``spec`` and what was measured as ``points``."""


def contradicts_checkpoint(folder: Path, member: MemberSpec, losses: Mapping[int, float]) -> bool:
    """Whether the checkpoint in ``folder`` has another validation loss somewhere than ``losses`` of ``member``.

    A checkpoint that is absent, damaged or another member's contradicts nothing.
    """
    try:
        state = json.loads((folder / STATE_FILE).read_text())
        if state["spec"]["id"] != member.id:
            return False
        measured = {int(examples): value for examples, metric, value in state["points"] if metric == "validation_loss"}
    except (OSError, ValueError, TypeError, KeyError):
        return False
    return any(not _are_equal(measured[at], loss) for at, loss in losses.items() if at in measured)


def _are_equal(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
