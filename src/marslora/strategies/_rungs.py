"""The options that successive halving and ASHA have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from marslora.strategies._strategy import AbstractStrategy


@dataclass(frozen=True, kw_only=True)
class RungConfig(AbstractStrategy.Config):
    """The lengths of the rungs: ``first_rung``, then each ``eta`` times as long as the one before."""

    eta: Annotated[int, Field(ge=2)] = 4
    """Factor between the lengths of two rungs; of n members at a rung, n / eta go on."""
    first_rung: Annotated[float, Field(gt=0, le=1)] = 1 / 64
    """Length of the first rung as a share of a full run."""
