"""What the law of settings sees of a setting: the ranks of the parts, the learning rate and its factors, the length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marslora.core.arrays import Array
from marslora.core.setting import Setting

USUAL_RANK = 16
"""The rank in which ranks are measured: a common default of LoRA."""
LANGUAGE = "language"
"""The part that the law treats apart from all others, which it calls towers."""
UNIT = np.log(4.0)
"""Log ratio of ranks or learning rates that is one unit of distance: a rung of a ladder that rises by factors of 4."""


@dataclass(frozen=True)
class Features:
    """C settings of M parts as the law sees them."""

    parts: tuple[str, ...]
    """The parts. Any but ``language`` is a tower to the law."""
    trained_CM: Array
    """1 where a part is trained, else 0."""
    log_rank_CM: Array
    """Log of the rank in `USUAL_RANK`; 0 where a part is not trained."""
    log_factor_CM: Array
    """Log of the part's learning rate in that of the setting."""
    log_rate_C: Array
    """Log of the learning rate in the one that is taken to suit rank 16."""
    num_steps: float
    """Optimizer steps of a full run."""

    @property
    def place_CD(self) -> Array:
        """Coordinates in which near settings have like losses, in rungs of ladders."""
        own = (self.log_rank_CM / UNIT, self.log_factor_CM / UNIT, self.log_rate_C[:, None] / UNIT)
        return np.concatenate([self.trained_CM, *own], axis=1)


def make_features(
    settings: Sequence[Setting], parts: Sequence[str], centre_rate: float | None, num_steps: float
) -> Features:
    """The features of settings.

    Args:
        settings: The candidates.
        parts: The parts whose ranks differ among the settings, or matter for their learning rates.
        centre_rate: Learning rate that is taken to suit rank 16; None if the learning rate is not searched.
        num_steps: Optimizer steps of a full run.
    """
    rank_CM = np.array([[setting.allocation[part] for part in parts] for setting in settings], dtype=float)
    rate_C = np.array([setting.learning_rate or 1.0 for setting in settings])
    factor_CM = np.array(
        [
            [(setting.rate_of(part) or rate) / rate for part in parts]
            for setting, rate in zip(settings, rate_C, strict=True)
        ]
    )
    return Features(
        parts=tuple(parts),
        trained_CM=(rank_CM > 0).astype(float),
        log_rank_CM=np.where(rank_CM > 0, np.log(np.maximum(rank_CM, 1) / USUAL_RANK), 0.0),
        log_factor_CM=np.log(factor_CM) if centre_rate else np.zeros_like(factor_CM),
        log_rate_C=np.log(rate_C / centre_rate) if centre_rate else np.zeros(len(settings)),
        num_steps=num_steps,
    )
