"""Small functions on tensors whose first dimension is K members, and on numbers that differ between members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from marslora.core.errors import ConfigError

HALF = (torch.float16, torch.bfloat16)
"""The half-precision dtypes."""


def working_dtype(param: Tensor) -> torch.dtype:
    """The dtype of state and arithmetic: float32 for half precision, where updates of size ``lr`` would vanish."""
    return torch.float32 if param.dtype in HALF else param.dtype


def as_stack(tensor: Tensor, members: int | None) -> Tensor:
    """A view whose first dimension is the members: an ordinary tensor is a pack of one."""
    return tensor.unsqueeze(0) if members is None else tensor


def member_values(value: float | Tensor | Sequence[float], members: int) -> Tensor:
    """A number, or one per member, as (K,) float64 on the CPU."""
    values_K = torch.as_tensor(value, dtype=torch.float64, device="cpu").reshape(-1)
    if values_K.numel() not in (1, members):
        raise ConfigError(
            f"A number of a parameter group must have 1 value or one for each of {members} members, found "
            f"{values_K.numel()}. Give one for all members, or one for each."
        )
    return values_K.expand(members)


def foreach_values(values: Tensor, like: Sequence[Tensor]) -> float | list[float] | list[Tensor]:
    """(K,) or (N, K) float64 values as ``torch._foreach_*`` takes them for N stacked tensors.

    One number if all are equal, N numbers for ordinary parameters (the fast paths), otherwise N tensors that broadcast
    over their members.
    """
    first = float(values.flatten()[0])
    if bool((values == first).all()):
        return first
    rows_NK = values.expand(len(like), -1)
    if rows_NK.shape[1] == 1:
        return [float(value) for value in rows_NK[:, 0]]
    rows_NK = rows_NK.to(like[0].device, like[0].dtype, non_blocking=True)
    return [row.view(-1, *(1,) * (tensor.ndim - 1)) for row, tensor in zip(rows_NK.unbind(), like, strict=True)]


def rank_mask(ranks: Sequence[int], like: Tensor, rank_dim: int) -> Tensor | None:
    """Booleans that broadcast against ``like``, False in the padding of each member; None if nothing is padded."""
    size = like.shape[rank_dim]
    if min(ranks) >= size:
        return None
    keep_KR = torch.arange(size) < torch.tensor(ranks).unsqueeze(-1)
    shape = [len(ranks)] + [1] * (like.ndim - 1)
    shape[rank_dim] = size
    return keep_KR.view(shape).to(like.device, non_blocking=True)


def zero_padding(grads: Sequence[Any], group: dict[str, Any]) -> list[Tensor]:
    """Gradients with members first and zeros in the padding: views, or copies if there is padding."""
    views = [as_stack(grad, group["members"]) for grad in grads]
    if group["ranks"] is None:
        return views
    masks: dict[tuple[int, ...], Tensor | None] = {}
    for view in views:
        if view.shape not in masks:
            masks[view.shape] = rank_mask(group["ranks"], view, group["rank_dim"])
    return [view if (mask := masks[view.shape]) is None else torch.where(mask, view, 0.0) for view in views]


def strip_padding(row: Tensor, rank: int | None, rank_dim: int | None) -> Tensor:
    """A view of one member's tensor without its padding."""
    return row if rank is None or rank_dim is None else row.narrow(rank_dim, 0, rank)


def read_rows(tensor: Tensor, rows: Tensor | None) -> Tensor:
    """A copy of the members ``rows``; the tensor itself if ``rows`` is None."""
    return tensor if rows is None else tensor[rows]


def write_rows(targets: Sequence[Tensor], rows: Tensor | None, values: Sequence[Tensor]) -> None:
    """Undo `read_rows`: write values back unless they share the targets' memory already."""
    for target, value in zip(targets, values, strict=True):
        if rows is not None:
            target[rows] = value.to(target.dtype)
        elif value is not target and value.data_ptr() != target.data_ptr():
            target.copy_(value)
