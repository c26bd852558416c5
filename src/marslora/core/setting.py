"""Settings: the candidates of a search, each with a rank for every part and a learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field

from marslora.core.allocation import Allocation
from marslora.core.record import Record
from marslora.core.training import TrainingSpec

PartRates = Annotated[
    tuple[tuple[str, float], ...],
    BeforeValidator(lambda rates: tuple(rates.items()) if isinstance(rates, Mapping) else rates),
]
"""Learning rates of single parts, hashable; made from a mapping too."""


class Setting(Record):
    """The ranks of all parts and the learning rate with which they are trained. Hashable."""

    allocation: Allocation
    learning_rate: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Learning rate of all parts without one of their own; None: that of the training spec, which is not searched."""
    part_learning_rates: PartRates = ()
    """Learning rates of single parts, if they are searched."""

    def rate_of(self, part: str) -> float | None:
        """The learning rate of ``part``; None if that of the training spec holds."""
        return dict(self.part_learning_rates).get(part, self.learning_rate)

    def apply_to(self, training: TrainingSpec) -> TrainingSpec:
        """``training`` with these learning rates in the place of its own."""
        if self.learning_rate is None:
            return training
        rates = {**training.part_learning_rates, **dict(self.part_learning_rates)}
        return training.model_copy(update={"learning_rate": self.learning_rate, "part_learning_rates": rates})

    def __str__(self) -> str:
        rates = [] if self.learning_rate is None else [f"learning rate {self.learning_rate:.2g}"]
        rates += [f"{part} rate {rate:.2g}" for part, rate in self.part_learning_rates]
        return ", ".join([str(self.allocation), *rates])
