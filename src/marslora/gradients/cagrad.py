"""CAGrad: the direction near the mean that helps the worst-off objective most (arXiv 2110.14048)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.optimize import LinearConstraint, minimize

from marslora.core.arrays import Array
from marslora.gradients._base import AbstractCombiner, Block, Weights


class CAGrad(AbstractCombiner):
    """``max min_k <g, g_k>`` over ``|g - g_0| <= c |g_0|``, ``g_0`` the mean gradient.

    ``g = g_0 + c |g_0| g_w / |g_w|`` with ``g_w`` the convex combination that makes ``<g_w, g_0> + c |g_0| |g_w|``
    smallest; in closed form for two objectives. c = 0 is the mean.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractCombiner.Config):
        """The options of every combiner, and the size of the ball."""

        c: Annotated[float, Field(ge=0, lt=1)] = 0.5
        """Radius of the ball around the mean gradient, as a share of the mean's norm."""

    config: Config

    def weigh(self, block: Block) -> Weights:
        """Return the weights of the mean plus those of the direction that helps the worst-off objective."""
        gram_KK = block.gram_KK / np.trace(block.gram_KK)
        number = len(gram_KK)
        mean_K = np.full(number, 1.0 / number)
        radius = self.config.c * float(np.sqrt(max(mean_K @ gram_KK @ mean_K, 0.0)))
        worst_K = (_worst_of_two if number == 2 else _worst)(gram_KK, radius)
        length = float(np.sqrt(max(worst_K @ gram_KK @ worst_K, 0.0)))
        if length <= 1e-9 or radius == 0.0:
            return Weights(mean_K, "mean")
        return Weights(mean_K + radius / length * worst_K, "worst first")


def _worst_of_two(gram_KK: Array, radius: float) -> Array:
    """Minimise ``slope w + radius sqrt(a w^2 + 2 b w + d)`` over w in [0, 1]: convex, so clip its only minimum.

    Where the derivative vanishes, ``u = a w + b`` solves ``u^2 (radius^2 a - slope^2) = slope^2 (a d - b^2)``.
    """
    (first, cross), (_, second) = gram_KK
    a, b, d = first + second - 2 * cross, cross - second, second
    slope = (first - second) / 2
    room = radius**2 * a - slope**2
    if a <= 0:
        return np.array([0.5, 0.5])
    if room <= 0:
        return np.array([0.0, 1.0]) if slope > 0 else np.array([1.0, 0.0])
    u = -slope * max(float(a * d - b * b) / room, 0.0) ** 0.5
    weight = float(np.clip((u - b) / a, 0.0, 1.0))
    return np.array([weight, 1.0 - weight])


def _worst(gram_KK: Array, radius: float) -> Array:
    """Minimise the same function over a simplex of any size, numerically."""
    number = len(gram_KK)
    mean_K = np.full(number, 1.0 / number)
    towards_K = gram_KK @ mean_K

    def value(weights_K: Array) -> tuple[float, Array]:
        pulled_K = gram_KK @ weights_K
        length = float(np.sqrt(max(float(weights_K @ pulled_K), 1e-24)))
        return float(weights_K @ towards_K + radius * length), towards_K + radius * pulled_K / length

    found = minimize(
        value,
        mean_K,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * number,
        constraints=LinearConstraint(np.ones((1, number)), 1.0, 1.0),
        options={"ftol": 1e-12, "maxiter": 200},
    )
    weights_K: Array = np.clip(found.x, 0.0, 1.0)
    weights_K /= weights_K.sum()
    return weights_K
