"""What a law looks like: a sum of non-negative coefficients times basis functions whose shape a few exponents set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marslora.core.arrays import Array

Inputs = Mapping[str, Array]
"""The inputs of N points by name, each an array of N."""
TINY = 1e-300
"""Least value of which a logarithm is taken."""


@dataclass(frozen=True)
class Shape:
    """One parameter that the basis functions depend on non-linearly."""

    name: str
    low: float
    high: float
    prior: float = np.inf
    """Standard deviation of a Gaussian prior around 0; infinity: no prior."""
    positive: bool = False
    """Searched in its logarithm (``low`` and ``high`` are logarithms), reported as it is."""


class Form(ABC):
    """``f(x) = sum_j c_j phi_j(x; shapes)`` with every ``c_j >= 0``.

    Given the shapes a form is linear, so the shapes are searched outside and the coefficients solved inside
    (variable projection). A vector of *inner* parameters is ``[log c_1 .. log c_J, shape_1 .. shape_Q]``.
    """

    variant: str
    text: str
    """The formula, with the reference values the inputs are divided by."""
    coefficients: tuple[str, ...]
    shapes: tuple[Shape, ...]

    @abstractmethod
    def basis(self, x: Inputs, shape_BQ: NDArray[Any]) -> NDArray[Any]:
        """``phi_BNJ`` for B settings of the shapes. Must be analytic: derivatives are taken by complex steps."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every parameter in the order of the inner vector."""
        return (*self.coefficients, *(shape.name for shape in self.shapes))

    @property
    def log_searched(self) -> NDArray[np.bool_]:
        """Which inner parameters are logarithms of the reported ones."""
        return np.array([True] * len(self.coefficients) + [shape.positive for shape in self.shapes], dtype=bool)

    def reported(self, inner_BP: Array) -> Array:
        """The parameters as people read them, from inner ones."""
        return np.where(self.log_searched, np.exp(np.where(self.log_searched, inner_BP, 0.0)), inner_BP)

    def inner(self, reported_BP: Array) -> Array:
        """The inverse of `reported`."""
        safe = np.maximum(np.where(self.log_searched, reported_BP, 1.0), TINY)
        return np.where(self.log_searched, np.log(safe), reported_BP)

    def log_value(self, x: Inputs, inner_BP: Array) -> Array:
        """``log f`` at N points for B parameter vectors: (B, N)."""
        num = len(self.coefficients)
        phi_BNJ = self.basis(x, inner_BP[:, num:])
        value_BN: Array = np.einsum("bnj,bj->bn", phi_BNJ, np.exp(inner_BP[:, :num]))
        return np.log(np.maximum(value_BN, TINY))

    def log_value_and_jacobian(self, x: Inputs, inner_BP: Array) -> tuple[Array, Array]:
        """``log f`` (B, N) and its derivatives by the inner parameters (B, N, P)."""
        num = len(self.coefficients)
        coefficient_BJ, shape_BQ = np.exp(inner_BP[:, :num]), inner_BP[:, num:]
        part_BNJ = self.basis(x, shape_BQ) * coefficient_BJ[:, None, :]
        value_BN = np.maximum(part_BNJ.sum(-1), TINY)
        columns = [part_BNJ / value_BN[..., None]]
        for q in range(shape_BQ.shape[1]):
            step = shape_BQ.astype(complex)
            step[:, q] += 1e-30j  # a complex step: the derivative without cancellation
            slope_BN = np.einsum("bnj,bj->bn", self.basis(x, step).imag, coefficient_BJ) * 1e30
            columns.append((slope_BN / value_BN)[..., None])
        return np.log(value_BN), np.concatenate(columns, axis=-1)


def raise_to_power(x_N: Array, reference: float, exponent_B: NDArray[Any]) -> NDArray[Any]:
    """``(x / reference) ** exponent``: (B, N)."""
    result: NDArray[Any] = np.exp(exponent_B[:, None] * np.log(x_N / reference)[None, :])
    return result


def stack_columns(num_points: int, *columns: NDArray[Any] | float) -> NDArray[Any]:
    """Basis functions (B, N) or constants side by side: (B, N, J)."""
    num = max((column.shape[0] for column in columns if isinstance(column, np.ndarray)), default=1)
    return np.stack([np.broadcast_to(column, (num, num_points)) for column in columns], axis=-1)
