"""Run a module once for each member, on the member's chunk of the batch and with the member's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_unflatten


def run_members(base: nn.Module, weights_K: Sequence[dict[str, Tensor]], args: Any, kwargs: Any) -> Any:
    """Return ``base(*args, **kwargs)`` for a batch of K equal chunks, each run with the weights of its member.

    Tensors whose rows cannot be divided among the members are passed whole to every member.
    """
    flat, structure = tree_flatten((args, kwargs))
    outputs = []
    for k, weights in enumerate(weights_K):
        own_args, own_kwargs = tree_unflatten([_chunk(leaf, k, len(weights_K)) for leaf in flat], structure)
        outputs.append(tree_flatten(functional_call(base, weights, own_args, own_kwargs)))
    columns = zip(*(leaves for leaves, _ in outputs), strict=True)
    joined = [torch.cat(column) if isinstance(column[0], Tensor) else column[0] for column in columns]
    return tree_unflatten(joined, outputs[0][1])


def _chunk(leaf: Any, k: int, members: int) -> Any:
    is_divisible = isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] % members == 0
    return leaf.chunk(members)[k] if is_divisible else leaf
