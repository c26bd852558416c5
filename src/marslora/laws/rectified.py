"""The rectified scaling law of fine-tuning: loss against the size of the data (Lin et al. 2024, arXiv 2402.02314).

``L(D) = E + A / (K + (D / D0)^b)``: flat while D is small against what pre-training taught (K), a power law after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marslora.core.decision import LawFit, LawPoint
from marslora.laws._base import AbstractLaw, FormBuilder, fit_and_score, references_of, sample_of, with_scores
from marslora.laws._form import Form, Inputs, Shape, power, stack


class RectifiedForm(Form):
    """``E + A / (K + (data / data0)^b)``."""

    variant = "rectified"
    coefficients = ("E", "A")
    shapes = (Shape("K", -12.0, 8.0, positive=True), Shape("b", 0.02, 3.0))

    def __init__(self, references: Mapping[str, float]) -> None:
        self.data0 = references.get("data", 1.0)
        self.text = f"L = E + A / (K + (data/{self.data0:.6g})^b)"

    def basis(self, x: Inputs, shape_BQ: NDArray[Any]) -> NDArray[Any]:
        """A constant and the rectified power."""
        learnt_BN = power(np.maximum(x["data"], 1e-9), self.data0, shape_BQ[:, 1])
        return stack(len(x["data"]), 1.0, 1.0 / (np.exp(shape_BQ[:, :1]) + learnt_BN))


class RectifiedLaw(AbstractLaw):
    """Loss against data size with a pre-power phase. Points need the input ``data``."""

    name = "rectified"

    def builders(self) -> Mapping[str, FormBuilder]:
        """One form."""
        return {"rectified": RectifiedForm}

    def _fit_usable(self, points: Sequence[LawPoint], subject: str, rng: np.random.Generator, skipped: int) -> LawFit:
        return fit_in_data(self, points, subject, rng, skipped)


def fit_in_data(
    law: AbstractLaw, points: Sequence[LawPoint], subject: str, rng: np.random.Generator, skipped: int
) -> LawFit:
    """The first form of a law in the one input ``data``."""
    sample = sample_of(points)
    references = references_of(sample, ["data"])
    num_sizes = len(np.unique(sample.x["data"])) if "data" in sample.x else 0
    builder = next(iter(law.builders().values()))
    needed = len(builder({}).names)
    if num_sizes < needed:
        return law.failed(subject, f"{needed} parameters need as many data sizes, found {num_sizes}", points)
    fitted, held_out = fit_and_score(builder(references), sample, ["data"])
    caveats = [f"{skipped} unusable points were left out"] if skipped else []
    return with_scores(law.record(fitted, sample, points, subject, references, rng, caveats), held_out, {})
