"""The plain power law in the size of the data, ``L(D) = E + A (D / D0)^-b``: the baseline that other laws must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marslora.core.decision import LawFit, LawPoint
from marslora.laws._base import AbstractLaw, FormBuilder
from marslora.laws._form import Form, Inputs, Shape, power, stack
from marslora.laws.rectified import fit_in_data


class PowerForm(Form):
    """``E + A (data / data0)^-b``."""

    variant = "power"
    coefficients = ("E", "A")
    shapes = (Shape("b", 0.005, 3.0),)

    def __init__(self, references: Mapping[str, float]) -> None:
        self.data0 = references.get("data", 1.0)
        self.text = f"L = E + A (data/{self.data0:.6g})^-b"

    def basis(self, x: Inputs, shape_BQ: NDArray[Any]) -> NDArray[Any]:
        """A constant and the power."""
        return stack(len(x["data"]), 1.0, power(x["data"], self.data0, -shape_BQ[:, 0]))


class PowerLaw(AbstractLaw):
    """Loss against data size as one power. Points need the input ``data``, above 0."""

    name = "power"

    def builders(self) -> Mapping[str, FormBuilder]:
        """One form."""
        return {"power": PowerForm}

    def _fit_usable(self, points: Sequence[LawPoint], subject: str, rng: np.random.Generator, skipped: int) -> LawFit:
        return fit_in_data(self, points, subject, rng, skipped)
