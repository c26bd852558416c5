"""``y_k + scale_k B_k A_k x_k`` for K members of unequal ranks, in two ways that give the same numbers.

*Padded*: two batched products at the largest rank. They need few kernel launches and suit GPUs and similar ranks.
*Concatenated*: each member's products at its true rank, added in place. They suit CPUs, where padding costs time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

PADDING_WORTH_AVOIDING = 0.75
"""On a CPU, members are multiplied one by one if less than this share of the padded rank is in use (measured there)."""


def add_low_rank(
    y_KNO: Tensor,
    x_KNI: Tensor,
    A_KRI: Tensor,
    B_KOR: Tensor,
    ranks: Sequence[int],
    scales: Sequence[float],
    *,
    overwrite: bool = True,
) -> Tensor:
    """Return the sum, computed in the faster way. ``overwrite`` allows to compute it in the memory of ``y_KNO``."""
    in_use = sum(ranks) / max(1, len(ranks) * max(ranks))
    same_dtype = y_KNO.dtype == x_KNI.dtype == A_KRI.dtype
    if y_KNO.device.type == "cpu" and same_dtype and in_use < PADDING_WORTH_AVOIDING:
        return concatenated(y_KNO if overwrite else y_KNO.clone(), x_KNI, A_KRI, B_KOR, ranks, scales)
    return padded(y_KNO, x_KNI, A_KRI, B_KOR, scales)


def padded(y_KNO: Tensor, x_KNI: Tensor, A_KRI: Tensor, B_KOR: Tensor, scales: Sequence[float]) -> Tensor:
    """Return the sum, computed with two batched products."""
    h_KNR = torch.bmm(x_KNI, A_KRI.mT)
    scale_K11 = torch.tensor(scales, dtype=h_KNR.dtype).to(h_KNR.device, non_blocking=True).view(-1, 1, 1)
    return y_KNO + torch.bmm(h_KNR * scale_K11, B_KOR.mT).to(y_KNO.dtype)


def concatenated(
    y_KNO: Tensor, x_KNI: Tensor, A_KRI: Tensor, B_KOR: Tensor, ranks: Sequence[int], scales: Sequence[float]
) -> Tensor:
    """Return the sum, computed member by member and written into ``y_KNO``."""
    added: Tensor = _Concatenated.apply(y_KNO, x_KNI, A_KRI, B_KOR, tuple(ranks), tuple(scales))  # type: ignore[no-untyped-call]
    return added


class _Concatenated(torch.autograd.Function):
    """Products at each member's true rank. The padding gets zeros as gradients, without computing them."""

    @staticmethod
    def forward(
        ctx: Any,
        y_KNO: Tensor,
        x_KNI: Tensor,
        A_KRI: Tensor,
        B_KOR: Tensor,
        ranks: tuple[int, ...],
        scales: tuple[float, ...],
    ) -> Tensor:
        kept = []
        for k, (rank, scale) in enumerate(zip(ranks, scales, strict=True)):
            h_NR = torch.mm(x_KNI[k], A_KRI[k, :rank].t()).mul_(scale)
            if rank:
                y_KNO[k].addmm_(h_NR, B_KOR[k, :, :rank].t())
            kept.append(h_NR)
        ctx.mark_dirty(y_KNO)
        ctx.save_for_backward(x_KNI, A_KRI, B_KOR, *kept)
        ctx.ranks, ctx.scales = ranks, scales
        return y_KNO

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dy_KNO = gradients[0]
        x_KNI, A_KRI, B_KOR, *kept = ctx.saved_tensors
        dx_KNI = torch.zeros_like(x_KNI) if ctx.needs_input_grad[1] else None
        dA_KRI, dB_KOR = torch.zeros_like(A_KRI), torch.zeros_like(B_KOR)
        for k, (rank, scale) in enumerate(zip(ctx.ranks, ctx.scales, strict=True)):
            if not rank:
                continue
            dh_NR = torch.mm(dy_KNO[k], B_KOR[k, :, :rank]).mul_(scale)
            dB_KOR[k, :, :rank] = torch.mm(dy_KNO[k].t(), kept[k])
            dA_KRI[k, :rank] = torch.mm(dh_NR.t(), x_KNI[k])
            if dx_KNI is not None:
                torch.mm(dh_NR, A_KRI[k, :rank], out=dx_KNI[k])
        return dy_KNO, dx_KNI, dA_KRI, dB_KOR, None, None
