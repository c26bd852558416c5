"""DoRA: the rows of an adapted weight have trained lengths (Liu et al. 2024, arXiv 2402.09353), for K members at once.

The adapted linear is ``g (W + scale B A) x + bias`` with ``g = magnitude / |rows of W + scale B A|``. The lengths in
the denominator are constants in the backward pass (section 4.3 of the paper), as in PEFT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft.utils.integrations import dequantize_bnb_weight, dequantize_module_weight
from torch import Tensor, nn

from marslora.core.linears import QUANTIZED, is_quantized


def weight_OI(base: nn.Module) -> Tensor:
    """Return the weight (O, I) of a linear, as numbers if it is quantised. GPT-2's Conv1D keeps it transposed."""
    weight: Tensor = base.get_parameter("weight") if not is_quantized(base) else _read_numbers(base)
    return weight if isinstance(base, nn.Linear) else weight.T


def _read_numbers(base: Any) -> Tensor:
    """Return the weight for which the codes of a quantised linear stand. The layer stays as it is."""
    weight: Tensor
    if type(base.weight).__name__ in QUANTIZED:
        weight = dequantize_bnb_weight(base.weight, state=getattr(base, "state", None))
    else:
        weight = dequantize_module_weight(base)
    return weight


@torch.no_grad()
def row_lengths(W_OI: Tensor, A_KRI: Tensor, B_KOR: Tensor, scales: Sequence[float]) -> Tensor:
    """Return the lengths (K, O) of the rows of ``W + scale_k B_k A_k``, without computing these K matrices.

    ``|w + s b A|^2 = |w|^2 + 2 s b (A w) + s^2 b (A A^T) b^T`` for each row w of W and b of B.
    """
    W_OI = W_OI.to(A_KRI.dtype)
    scale_K11 = torch.tensor(scales, dtype=A_KRI.dtype).to(A_KRI.device, non_blocking=True).view(-1, 1, 1)
    b_KOR = B_KOR * scale_K11
    linear_KO = (b_KOR * (W_OI @ A_KRI.mT)).sum(-1)
    square_KO = (b_KOR @ (A_KRI @ A_KRI.mT) * b_KOR).sum(-1)
    return (W_OI.square().sum(-1) + 2 * linear_KO + square_KO).clamp(min=0).sqrt()
