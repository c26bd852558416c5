"""The orthogonal factor of many matrices at once: Newton-Schulz (approximate) and polar (exact).

Thin matrices, such as LoRA factors, are handled through their Gram matrix: with ``G = Y Y^T`` every Newton-Schulz step
``Y <- (a I + b G + c G^2) Y`` multiplies Y from the left by a polynomial of G, so that all five steps happen on r x r
matrices and the long side is touched twice instead of ten times. In exact arithmetic both ways are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

A, B, C = 3.4445, -4.7750, 2.0315
"""Quintic coefficients of Muon (Jordan 2024): large slope at 0; singular values end in about [0.68, 1.13]."""
THIN = 2
"""A matrix whose long side is at least this many times its short side goes through its Gram matrix."""
POLAR_CUT, GRAM_CUT = 32.0, 64.0
"""Singular values below this many units of rounding of the largest are noise, and `polar` makes them 0 instead of 1.
The second is in units of float64 for their squares, which is how the Gram matrix holds them. By convention."""


STACK_ELEMENTS = 1 << 26
"""On a GPU, matrices of one shape are stacked up to this many elements (256 MB in float32); a CPU is faster without."""


def newton_schulz(matrices: Sequence[Tensor], eps: float, steps: int = 5, dtype: str | None = None) -> list[Tensor]:
    """``U S V^T -> U f(S) V^T`` with f(S) near 1 for each (..., m, n) matrix; zero stays zero, NaN stays in its matrix.

    ``eps`` is added to the Frobenius norm. ``dtype`` is that of the arithmetic; None: full precision for thin
    matrices, bfloat16 for others on a GPU. The iteration is Muon's (Jordan 2024).
    """
    out = list(matrices)
    thin = [i for i, matrix in enumerate(matrices) if _is_thin(matrix, dtype)]
    done = _through_gram([matrices[i] for i in thin], dtype, lambda gram: _gram_steps(gram, eps, steps))
    for i, matrix in zip(thin, done, strict=True):
        out[i] = matrix
    for i in set(range(len(out))) - set(thin):
        out[i] = _newton_schulz(matrices[i], eps, steps, dtype)
    return out


def polar(matrices: Sequence[Tensor]) -> list[Tensor]:
    """The orthogonal factor ``U V^T`` of each (..., m, n) matrix, from eigenvectors of its Gram matrix in float64."""
    units = [torch.finfo(matrix.dtype).eps for matrix in matrices]
    return _through_gram(matrices, "float64", lambda gram: _inverse_root(gram, POLAR_CUT * max(units)))


def _newton_schulz(matrix: Tensor, eps: float, steps: int, dtype: str | None) -> Tensor:
    work = getattr(torch, dtype) if dtype else matrix.dtype
    if dtype is None and matrix.is_cuda and matrix.dtype == torch.float32:
        work = torch.bfloat16
    y = _lay_wide(matrix).to(work)
    y = y / (torch.linalg.vector_norm(y, dim=(-2, -1), keepdim=True) + eps)
    for _ in range(steps):
        gram = y @ y.mT
        y = A * y + (B * gram + C * gram @ gram) @ y
    return _lay_back(y.to(matrix.dtype), matrix)


def _is_thin(matrix: Tensor, dtype: str | None) -> bool:
    """Whether the Gram form pays and is exact enough: it squares the condition number, so not in low precision."""
    short, long = sorted(matrix.shape[-2:])
    rounded = matrix.is_cuda and matrix.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
    return long >= THIN * short and (dtype in ("float32", "float64") or dtype is None) and not rounded


def _gram_steps(gram: Tensor, eps: float, steps: int) -> Tensor:
    """The matrices Q (b, s, s) with ``Q Y`` equal to all steps on ``Y / (|Y| + eps)``, from ``Y Y^T``."""
    shrink = 1 / (gram.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt() + eps)[:, None, None]
    gram = gram * shrink**2
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    total = shrink * identity
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=B, alpha=C) + A * identity
        total = factor @ total
        if step + 1 < steps:
            gram = factor @ gram @ factor
    return total


def _inverse_root(gram: Tensor, cut: float) -> Tensor:
    """``gram^(-1/2)`` (b, s, s), with 0 for singular values below ``cut`` times the largest."""
    # LAPACK refuses a whole batch for one NaN: a broken matrix must not stop its neighbours.
    finite = gram.isfinite().all(-1).all(-1)[:, None, None]
    values, vectors = torch.linalg.eigh(torch.where(finite, gram, 0.0))
    cut = max(cut**2, GRAM_CUT * torch.finfo(gram.dtype).eps)
    lowest = (values[:, -1:] * cut).clamp(min=torch.finfo(gram.dtype).tiny)
    roots = torch.where(values > lowest, values, torch.inf).rsqrt()
    return torch.where(finite, (vectors * roots[:, None, :]) @ vectors.mT, torch.nan)


def _through_gram(matrices: Sequence[Tensor], dtype: str | None, factor: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """``factor(Y Y^T) @ Y`` of each matrix Y, laid wide; factors of one size are computed in one batch."""
    out = list(matrices)
    for indices in _group_alike([min(matrix.shape[-2:]) for matrix in matrices]):
        stacks = _stacks(matrices, indices)
        wide = [stack.to(getattr(torch, dtype)) if dtype else stack for _, stack in stacks]
        factors = iter(factor(torch.cat([y @ y.mT for y in wide])).split_with_sizes([len(y) for y in wide]))
        for (members, stack), y, own in zip(stacks, wide, factors, strict=True):
            done = (own @ y).to(stack.dtype)
            for i, part in zip(members, done.chunk(len(members)), strict=True):
                out[i] = _lay_back(part.view(_lay_wide(matrices[i]).shape), matrices[i])
    return out


def _stacks(matrices: Sequence[Tensor], indices: list[int]) -> list[tuple[list[int], Tensor]]:
    """Stacks (b, short, long) of the matrices ``indices``, each with the indices it is made of."""
    flat = {i: _lay_wide(matrices[i]).reshape(-1, *_lay_wide(matrices[i]).shape[-2:]) for i in indices}
    if not matrices[indices[0]].is_cuda:
        return [([i], flat[i]) for i in indices]
    stacks = []
    for same in _group_alike([tuple(flat[i].shape) for i in indices]):
        size = max(1, STACK_ELEMENTS // max(1, flat[indices[same[0]]].numel()))
        chunks = [[indices[j] for j in same[start : start + size]] for start in range(0, len(same), size)]
        stacks += [(chunk, torch.cat([flat[i] for i in chunk])) for chunk in chunks]
    return stacks


def _group_alike(keys: Sequence[Hashable]) -> list[list[int]]:
    """Lists of positions with equal keys, in the order of their first position."""
    positions: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        positions.setdefault(key, []).append(index)
    return list(positions.values())


def _lay_wide(matrix: Tensor) -> Tensor:
    return matrix.mT if matrix.shape[-2] > matrix.shape[-1] else matrix


def _lay_back(done: Tensor, matrix: Tensor) -> Tensor:
    return done.mT if matrix.shape[-2] > matrix.shape[-1] else done
