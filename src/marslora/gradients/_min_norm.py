"""The shortest convex combination of gradients (Desideri 2012; Sener and Koltun, arXiv 1810.04650)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from marslora.core.arrays import Array


def min_norm_weights(gram_KK: Array) -> Array:
    """Weights ``w >= 0`` that sum to 1 and make ``w^T gram w`` smallest. Exact: in closed form for two, by an
    active-set method for more.

    The combination ``g`` has ``<g, g_k> >= |g|^2`` for every objective: none of them gets worse along it.
    """
    if len(gram_KK) == 2:
        (a, d), (_, b) = gram_KK
        width = a + b - 2 * d
        first = 0.5 if width <= 0 else float(np.clip((b - d) / width, 0.0, 1.0))
        return np.array([first, 1.0 - first])
    return _by_least_squares(gram_KK)


def _by_least_squares(gram_KK: Array) -> Array:
    """``min |root w|^2 + (1 - sum w)^2`` over w >= 0, whose solution points where the wanted one does.

    For w = s u with u on the simplex the best s gives ``q / (1 + q)``, which grows with ``q = |root u|^2``.
    """
    eigenvalues_K, vectors_KK = np.linalg.eigh(gram_KK / np.trace(gram_KK))
    root_KK = np.sqrt(np.maximum(eigenvalues_K, 0.0))[:, None] * vectors_KK.T
    number = len(gram_KK)
    weights_K, _ = nnls(np.vstack([root_KK, np.ones((1, number))]), np.append(np.zeros(number), 1.0))
    found: Array = weights_K / weights_K.sum()
    return found
