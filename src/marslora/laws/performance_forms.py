"""The forms that Law-P chooses from: final loss against the ranks of the parts and the examples seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marslora.laws.form import Form, Inputs, Shape, raise_to_power, stack_columns

RESERVED = ("data", "imbalance", "params")
"""Inputs that are not the rank of a part."""


class PerformanceForm(Form):
    """What the forms share: an exponent ``a.PART`` for each part whose rank varied, and ``b`` if the data varied."""

    extra: tuple[Shape, ...] = ()

    def __init__(self, references: Mapping[str, float]) -> None:
        self.references = dict(references)
        self.parts = tuple(name for name in references if name not in RESERVED)
        ranks = tuple(Shape(f"a.{part}", -0.5, 1.5, prior=0.3) for part in self.parts)
        data = (Shape("b", 0.02, 2.0, prior=1.0),) if "data" in references else ()
        self.shapes = (*ranks, *data, *self.extra)
        self.text = "L = " + self.formula(
            " ".join(f"({part}/{references[part]:.6g})^-a.{part}" for part in self.parts),
            f"(data/{references['data']:.6g})^-b" if data else "",
        )

    def formula(self, ranks: str, data: str) -> str:
        """The right-hand side, given its rank and data factors in words."""
        return f"E + A {ranks} {data}"

    def ranks(self, x: Inputs, shape_BQ: NDArray[Any]) -> NDArray[Any]:
        """``prod_m (r_m / r0_m)^-a_m``: (B, N)."""
        result: NDArray[Any] = np.ones((len(shape_BQ), count_points(x)), dtype=shape_BQ.dtype)
        for q, part in enumerate(self.parts):
            result = result * raise_to_power(x[part], self.references[part], -shape_BQ[:, q])
        return result

    def data(self, x: Inputs, shape_BQ: NDArray[Any]) -> NDArray[Any]:
        """``(D / D0)^-b``, or 1 if the data did not vary: (B, N)."""
        if "data" not in self.references:
            return np.ones((len(shape_BQ), count_points(x)), dtype=shape_BQ.dtype)
        return raise_to_power(x["data"], self.references["data"], -shape_BQ[:, len(self.parts)])


class Multiplicative(PerformanceForm):
    """``E + A prod_m r_m^-a_m D^-b``: the joint law of Zhang et al. 2024 (arXiv 2402.17193)."""

    variant, coefficients = "multiplicative", ("E", "A")

    def basis(self, x: Inputs, shape_BQ: NDArray[Any]) -> NDArray[Any]:
        """A constant and the product of powers."""
        return stack_columns(count_points(x), 1.0, self.ranks(x, shape_BQ) * self.data(x, shape_BQ))


class Additive(PerformanceForm):
    """``E + A D^-b + sum_m C_m r_m^-a``: each part's rank sets its own floor. One exponent for all ranks."""

    variant = "additive"

    def __init__(self, references: Mapping[str, float]) -> None:
        super().__init__(references)
        self.coefficients = ("E", *(f"C.{part}" for part in self.parts), *(("A",) if "data" in references else ()))
        data = tuple(shape for shape in self.shapes if shape.name == "b")
        self.shapes = ((Shape("a", 0.05, 1.5, prior=1.0),) if self.parts else ()) + data

    def formula(self, ranks: str, data: str) -> str:  # noqa: ARG002
        """A sum of one term for each part."""
        terms = [f"C.{part} ({part}/{self.references[part]:.6g})^-a" for part in self.parts]
        return " + ".join(["E", *terms, *([f"A {data}"] if data else [])])

    def basis(self, x: Inputs, shape_BQ: NDArray[Any]) -> NDArray[Any]:
        """A constant, a power for each rank and one for the data."""
        columns: list[NDArray[Any] | float] = [1.0]
        columns += [raise_to_power(x[part], self.references[part], -shape_BQ[:, 0]) for part in self.parts]
        if "data" in self.references:
            columns.append(raise_to_power(x["data"], self.references["data"], -shape_BQ[:, -1]))
        return stack_columns(count_points(x), *columns)


class Rectified(PerformanceForm):
    """``E + A prod_m r_m^-a_m / (K + D^b)``: the joint law with a pre-power phase in the data."""

    variant, coefficients = "rectified", ("E", "A")
    extra = (Shape("K", -8.0, 5.0, positive=True),)

    def formula(self, ranks: str, data: str) -> str:
        """With the rectified data factor."""
        return f"E + A {ranks} / (K + {data.replace('^-b', '^b')})"

    def basis(self, x: Inputs, shape_BQ: NDArray[Any]) -> NDArray[Any]:
        """A constant and the rectified product."""
        learnt = np.exp(shape_BQ[:, -1:]) + 1.0 / self.data(x, shape_BQ)
        return stack_columns(count_points(x), 1.0, self.ranks(x, shape_BQ) / learnt)


class Accelerated(PerformanceForm):
    """``E + A (1 + D prod_m r_m^a_m / tau)^-b``: every allocation starts alike, rank sets the speed."""

    variant, coefficients = "accelerated", ("E", "A")
    extra = (Shape("tau", -7.0, 6.0, positive=True),)

    def formula(self, ranks: str, data: str) -> str:
        """With the ranks inside the bracket."""
        return f"E + A (1 + {data.replace('^-b', '')} {ranks.replace('^-', '^')} / tau)^-b"

    def basis(self, x: Inputs, shape_BQ: NDArray[Any]) -> NDArray[Any]:
        """A constant and the decay in rescaled data."""
        grown = (x["data"] / self.references["data"])[None, :] / self.ranks(x, shape_BQ) / np.exp(shape_BQ[:, -1:])
        return stack_columns(count_points(x), 1.0, np.exp(-shape_BQ[:, len(self.parts), None] * np.log1p(grown)))


class Imbalance(PerformanceForm):
    """``E + (A prod_m r_m^-a_m + G max |log T_m / T_n|) D^-b``: parts that converge apart cost loss."""

    variant, coefficients = "imbalance", ("E", "A", "G")

    def formula(self, ranks: str, data: str) -> str:
        """With the term in the imbalance."""
        return f"E + (A {ranks} + G imbalance) {data}"

    def basis(self, x: Inputs, shape_BQ: NDArray[Any]) -> NDArray[Any]:
        """A constant, the product of powers, and the imbalance."""
        data = self.data(x, shape_BQ)
        return stack_columns(count_points(x), 1.0, self.ranks(x, shape_BQ) * data, x["imbalance"][None, :] * data)


class Capacity(PerformanceForm):
    """``E + A prod_m r_m^-a_m D^-b + C params^k``: more parameters than the data can feed cost loss."""

    variant, coefficients = "capacity", ("E", "A", "C")
    extra = (Shape("k", 0.1, 2.0, prior=2.0),)

    def formula(self, ranks: str, data: str) -> str:
        """With the term in the parameters."""
        return f"E + A {ranks} {data} + C (params/{self.references.get('params', 1.0):.6g})^k"

    def basis(self, x: Inputs, shape_BQ: NDArray[Any]) -> NDArray[Any]:
        """A constant, the product of powers, and the power of the parameters."""
        grown = raise_to_power(x["params"], self.references.get("params", 1.0), shape_BQ[:, -1])
        return stack_columns(count_points(x), 1.0, self.ranks(x, shape_BQ) * self.data(x, shape_BQ), grown)


def count_points(x: Inputs) -> int:
    """The number of points N."""
    return len(next(iter(x.values())))
