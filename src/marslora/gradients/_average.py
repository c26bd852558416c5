"""Means of gradients over the processes of a run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed
from torch.nn import Parameter


@torch.no_grad()
def average_over_processes(
    gradients_P: Sequence[Tensor | None], parameters: Sequence[Parameter]
) -> list[Tensor | None]:
    """The gradients' means over the processes. Where only some processes have one, it is zero in the others; where none
    has, it stays None."""
    device = parameters[0].device
    present_P = torch.tensor([float(gradient is not None) for gradient in gradients_P], device=device)
    distributed.all_reduce(present_P, distributed.ReduceOp.MAX)
    flat = torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(gradients_P, parameters, strict=True)]
    )
    distributed.all_reduce(flat)
    pieces_P = torch.split(flat / distributed.get_world_size(), [parameter.numel() for parameter in parameters])
    return [
        piece.view_as(parameter).to(parameter.dtype) if present else None
        for piece, parameter, present in zip(pieces_P, parameters, present_P.tolist(), strict=True)
    ]
