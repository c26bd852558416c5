"""The options that successive halving and ASHA have in common."""

from __future__ import annotations

from dataclasses import dataclass

from marslora.core.errors import ConfigError
from marslora.strategies._strategy import AbstractStrategy


@dataclass(frozen=True, kw_only=True)
class RungConfig(AbstractStrategy.Config):
    """The lengths of the rungs: ``first_rung``, then each ``eta`` times as long as the one before."""

    eta: int = 4
    """Factor between the lengths of two rungs; of n members at a rung, n / eta go on."""
    first_rung: float = 1 / 64
    """Length of the first rung as a share of a full run."""

    def __post_init__(self) -> None:
        if self.eta < 2:
            raise ConfigError(
                f"`eta` must be at least 2, found {self.eta}. Use e.g. 4: each rung is then four times as long."
            )
        if not 0 < self.first_rung <= 1:
            raise ConfigError(
                f"`first_rung` must be a share of a full run, above 0 and at most 1, found {self.first_rung}."
            )
