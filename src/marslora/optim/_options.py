"""The options of every optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from marslora.core.plugin_options import AbstractPlugin

Decay = Annotated[float, Field(ge=0, lt=1)]
"""The type of an option that is the weight of the past in a running average."""
Epsilon = Annotated[float, Field(ge=0)]
"""The type of an option that is added to what is divided by."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(AbstractPlugin.Config):
    """Options of every optimizer. Each is also a number of the parameter groups, where it can be scheduled."""

    lr: Any = 1e-3
    """Learning rate: one number, or one for each member."""
    weight_decay: Any = 0.0
    """Decoupled, ``x (1 - lr wd)``: one number, or one for each member."""
    b_ratio: float = 1.0
    """How many times faster role B learns (LoRA+, arXiv 2402.12354)."""

    def group_numbers(self) -> dict[str, Any]:
        """The defaults of a parameter group."""
        return self.as_dict()
