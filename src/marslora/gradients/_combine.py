"""Combine the gradients of several objectives: inner products, weights for each block, weighted sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from marslora.core.arrays import Array
from marslora.core.runs import BlockGradient
from marslora.gradients._base import AbstractCombiner, Block, Weights

Gradients = Sequence[Tensor | None]
"""One objective's gradient: a tensor for every parameter, or None where it has none."""


@torch.no_grad()
def combine(
    combiner: AbstractCombiner,
    gradients: Mapping[str, Gradients],
    blocks: Sequence[str],
    losses: Mapping[str, float],
) -> tuple[list[Tensor | None], list[BlockGradient]]:
    """Return one gradient for every parameter, and notes on every block.

    Objectives without a gradient in a block are left out there; if one remains, its gradient is used unchanged. If a
    gradient is not finite, the block is summed without weights, so that the result is not finite either.

    Args:
        combiner: Returns the weights of a block.
        gradients: By objective, in the order in which the user named them. They are not changed.
        blocks: The block of every parameter (`block_names`).
        losses: By objective.
    """
    columns = [list(column) for column in zip(*gradients.values(), strict=True)]
    tensors_PKK = _products(columns)
    seen = Block("", tuple(gradients), tensors_PKK, np.array([losses[name] for name in gradients], dtype=np.float64))
    weights_PK = np.ones((len(columns), len(gradients)))
    notes = []
    for name in dict.fromkeys(blocks):
        members_P = np.array([block == name for block in blocks])
        block = Block(name, seen.objectives, tensors_PKK[members_P], seen.losses_K)
        weights_PK[members_P], note = _weigh(combiner, block)
        if note is not None:
            notes.append(note)
    return [_weighted(column, weights_K) for column, weights_K in zip(columns, weights_PK, strict=True)], notes


def _products(columns: Sequence[Sequence[Tensor | None]]) -> Array:
    """The inner products of every parameter's gradients (P, K, K), in one transfer; 0 where there is none."""
    number = len(columns[0])
    found = [_gram(column) for column in columns]
    device = next((gram.device for gram in found if gram is not None), torch.device("cpu"))
    zero_KK = torch.zeros(number, number, dtype=torch.float64, device=device)
    stacked: Array = torch.stack([zero_KK if gram is None else gram for gram in found]).cpu().numpy()
    return stacked


def _gram(column: Sequence[Tensor | None]) -> Tensor | None:
    some = next((gradient for gradient in column if gradient is not None), None)
    if some is None:
        return None
    flat_KN = torch.stack([(torch.zeros_like(some) if g is None else g).flatten() for g in column]).double()
    return flat_KN @ flat_KN.T


def _weigh(combiner: AbstractCombiner, block: Block) -> tuple[Array, BlockGradient | None]:
    """Return the weights of a block, (P, K) or (K,), and a note; None instead of it if no objective has a gradient."""
    number = len(block.objectives)
    if not np.isfinite(block.tensors_PKK).all():
        return np.ones(number), None
    present_K = np.diagonal(block.gram_KK) > 0
    if not present_K.any():
        return np.ones(number), None
    some = block.only(present_K)
    if len(some.objectives) == 1:
        answer = Weights(np.ones(1), "alone")
    elif combiner.modulates(block.name):
        answer = combiner.weigh(some)
    else:
        answer = Weights(np.ones(len(some.objectives)), "plain")
    weights_PK = np.broadcast_to(answer.weights, (len(block.tensors_PKK), len(some.objectives)))
    all_PK = np.zeros((len(block.tensors_PKK), number))
    all_PK[:, present_K] = weights_PK
    return all_PK, _note(some, weights_PK, answer.case)


def _note(block: Block, weights_PK: Array, case: str) -> BlockGradient:
    towards_K = np.einsum("pj,pjk->k", weights_PK, block.tensors_PKK)
    length = float(np.sqrt(max(np.einsum("pj,pjk,pk->", weights_PK, block.tensors_PKK, weights_PK), 0.0)))
    rows, columns = np.triu_indices(len(block.objectives), 1)
    norms_K = block.norms_K
    return BlockGradient(
        block=block.name,
        objectives=block.objectives,
        norms=tuple(norms_K.tolist()),
        cosine=float(block.cosines_KK[rows, columns].min()) if len(rows) else None,
        weights=tuple(weights_PK.mean(0).tolist()),
        norm=length,
        alignment=tuple((towards_K / norms_K / length).tolist()) if length > 0 else (0.0,) * len(norms_K),
        case=case,
    )


def _weighted(column: Sequence[Tensor | None], weights_K: Array) -> Tensor | None:
    """``sum_k w_k g_k``; a weight of 1 multiplies nothing, so that a plain sum is exactly that."""
    total: Tensor | None = None
    for gradient, weight in zip(column, weights_K.tolist(), strict=True):
        if gradient is not None:
            part = gradient if weight == 1.0 else gradient * weight
            total = part.clone() if total is None else total.add_(part)
    return total
