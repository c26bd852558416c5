"""Low-rank matrices whose directions are trained: the two steps of GeoLoRA, on W = U S V^T with orthonormal U and V.

With K = U S, L = V S^T and G the gradient of W, growing takes the steps ``K_1 = K - eta G V``, ``L_1 = L - eta G^T U``
and ``S_1 = S - eta U^T G V`` at once (the parallel integrator of Ceruti, Kusch and Lubich, arXiv 2304.05660). The part
of K_1 outside the range of U gives new columns of U and the matching rows of S; likewise L_1 for V.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Factors(NamedTuple):
    """``W = U S V^T``; U (I, r) and V (O, r) have orthonormal columns."""

    U_IR: Tensor
    S_RR: Tensor
    V_OR: Tensor

    @property
    def rank(self) -> int:
        """The number of columns r of U and V."""
        return self.S_RR.shape[0]

    def dense(self) -> Tensor:
        """Return the product W (I, O)."""
        return self.U_IR @ self.S_RR @ self.V_OR.T


def grow(factors: Factors, GV_IR: Tensor, GtU_OR: Tensor, gradS_RR: Tensor, rate: float, largest: int) -> Factors:
    """Take a step of length ``rate`` against the gradient, in which the rank grows to at most ``largest``.

    ``GV_IR`` is ``G V``, ``GtU_OR`` is ``G^T U``. (The published code uses the gradients of U and V, ``G V S^T``
    and ``G^T U S``, and divides by S, which is 0 at first and nearly singular later.)
    """
    U_IR, S_RR, V_OR = factors
    r, new = factors.rank, min(largest - factors.rank, factors.rank)
    K_IR, L_OR = U_IR @ S_RR - rate * GV_IR, V_OR @ S_RR.T - rate * GtU_OR
    U_new_IN, V_new_ON = _outside(U_IR, GV_IR, new), _outside(V_OR, GtU_OR, new)
    S_MM = S_RR.new_zeros(r + new, r + new)
    S_MM[:r, :r] = S_RR - rate * gradS_RR
    S_MM[r:, :r] = U_new_IN.T @ K_IR
    S_MM[:r, r:] = L_OR.T @ V_new_ON
    return Factors(torch.cat([U_IR, U_new_IN], 1), S_MM, torch.cat([V_OR, V_new_ON], 1))


def _outside(U_IR: Tensor, X_IR: Tensor, new: int) -> Tensor:
    """Return (I, new) orthonormal columns, orthogonal to U, that span most of the part of X outside the range of U."""
    residual_IR = X_IR - U_IR @ (U_IR.T @ X_IR)
    leading_IR, _, _ = torch.linalg.svd(residual_IR, full_matrices=False)
    Q_IM: Tensor = torch.linalg.qr(torch.cat([U_IR, leading_IR[:, :new]], 1)).Q
    return Q_IM[:, U_IR.shape[1] :]


def diagonalise(factors: Factors) -> Factors:
    """Return the same matrix with a diagonal S, entries in falling order: S = P diag(d) Q, U <- U P, V <- V Q^T."""
    P_RR, d_R, Q_RR = torch.linalg.svd(factors.S_RR)
    return Factors(factors.U_IR @ P_RR, d_R.diag(), factors.V_OR @ Q_RR.T)


def shorten(factors: Factors, rank: int) -> Factors:
    """Return the first ``rank`` directions of a matrix with diagonal S, which is the nearest matrix of that rank."""
    return Factors(factors.U_IR[:, :rank], factors.S_RR[:rank, :rank], factors.V_OR[:, :rank])


def rank_within(d_R: Tensor, tau: float, smallest: int) -> int:
    """Return the smallest rank whose remainder has a norm below ``tau`` times the whole's; ``d_R`` is in falling order.

    ``tau = 0`` cuts nothing.
    """
    tails = d_R.square().flip(0).cumsum(0).flip(0).sqrt()  # tails[k] = |d[k:]|
    short = (tails < tau * d_R.norm()).nonzero()
    rank = int(short[0]) if len(short) else len(d_R)
    return min(max(rank, smallest), len(d_R))


def ranks_within(d: list[Tensor], ranks: list[int], total: int, smallest: int) -> list[int]:
    """Return ranks, at most ``ranks``, that keep the ``total`` largest values overall and ``smallest`` of each."""
    sure = [min(smallest, rank) for rank in ranks]
    rest = [(value, i) for i, values in enumerate(d) for value in values[sure[i] : ranks[i]].tolist()]
    kept = sorted(rest, reverse=True)[: max(0, total - sum(sure))]
    return [least + sum(which == i for _, which in kept) for i, least in enumerate(sure)]
