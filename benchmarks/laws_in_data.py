"""Two laws of the loss against the size of the data alone, for comparison on published fine-tuning curves.

They are examples of a law of one's own: a `Form` says the formula, an `AbstractLaw` how it is fitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marslora.core.decision import LawFit, LawPoint
from marslora.laws import AbstractLaw, Form, Inputs, Shape
from marslora.laws.form import raise_to_power, stack_columns
from marslora.laws.law import FormBuilder, add_scores, find_references, fit_and_score, make_sample


class RectifiedForm(Form):
    """``E + A / (K + (data / data0)^b)``: flat while the data are few against what pre-training taught (K)."""

    variant = "rectified"
    coefficients = ("E", "A")
    shapes = (Shape("K", -12.0, 8.0, positive=True), Shape("b", 0.02, 3.0))

    def __init__(self, references: Mapping[str, float]) -> None:
        self.data0 = references.get("data", 1.0)
        self.text = f"L = E + A / (K + (data/{self.data0:.6g})^b)"

    def basis(self, x: Inputs, shape_BQ: NDArray[Any]) -> NDArray[Any]:
        """A constant and the rectified power."""
        learnt_BN = raise_to_power(np.maximum(x["data"], 1e-9), self.data0, shape_BQ[:, 1])
        return stack_columns(len(x["data"]), 1.0, 1.0 / (np.exp(shape_BQ[:, :1]) + learnt_BN))


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
        return stack_columns(len(x["data"]), 1.0, raise_to_power(x["data"], self.data0, -shape_BQ[:, 0]))


class LawInData(AbstractLaw):
    """A law with the one input ``data``, above 0, and one form."""

    form: type[RectifiedForm] | type[PowerForm]

    def builders(self) -> Mapping[str, FormBuilder]:
        """The one form."""
        return {self.form.variant: self.form}

    def fit_usable(
        self, points: Sequence[LawPoint], subject: str, rng: np.random.Generator, num_skipped: int
    ) -> LawFit:
        """The law with the form that the points can carry."""
        sample = make_sample(points)
        references = find_references(sample, ["data"])
        num_sizes = len(np.unique(sample.x["data"])) if "data" in sample.x else 0
        needed = len(self.form({}).names)
        if num_sizes < needed:
            message = f"{needed} parameters need as many data sizes, found {num_sizes}"
            return self.make_failed_fit(subject, message, points)
        fitted, held_out = fit_and_score(self.form(references), sample, ["data"])
        caveats = [f"{num_skipped} unusable points were left out"] if num_skipped else []
        return add_scores(self.make_fit(fitted, sample, points, subject, references, rng, caveats), held_out, {})


class RectifiedLaw(LawInData):
    """The rectified scaling law of fine-tuning (Lin et al. 2024, arXiv 2402.02314, equation 4)."""

    name, form = "rectified", RectifiedForm


class PowerLaw(LawInData):
    """A plain power law: the baseline that other laws must beat."""

    name, form = "power", PowerForm
