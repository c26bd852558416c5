"""One backward pass at the previous point, with the same randomness as the pass that follows at the current one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from marslora.optim._groups import active_members
from marslora.optim._stacks import as_stack, zero_padding

Own = tuple[Tensor, dict[str, Any], dict[str, Tensor]]
"""A parameter, its group, and its state: ``step``, ``last_point`` and, unless AdamW moves it, ``last_grad``."""


@contextmanager
def look_back(own: Sequence[Own], others: Sequence[Tensor], *, start: bool) -> Iterator[None]:
    """Put each parameter at its ``last_point``; on leaving, add its gradient to ``last_grad`` (reset if ``start``).

    A member without a step has no last point and stays where it is. Gradients of ``others`` are kept and restored.
    """
    here = [param.detach().clone() for param, _, _ in own]
    grads = [param.grad for param in others]
    devices = sorted({param.device.index for param, _, _ in own if param.is_cuda})
    with torch.random.fork_rng(devices):
        try:
            for param, group, state in own:
                _go_back(param, group, state)
            for param in others:
                param.grad = None
            yield
            for param, group, state in own:
                if "last_grad" in state:
                    _keep_gradient(param, group, state, start=start)
        finally:
            with torch.no_grad():
                for (param, _, _), point in zip(own, here, strict=True):
                    param.copy_(point)
            for param, grad in zip(others, grads, strict=True):
                param.grad = grad


@torch.no_grad()
def _go_back(param: Tensor, group: dict[str, Any], state: dict[str, Tensor]) -> None:
    row = as_stack(param, group["members"])
    stepped = (state["step"].view(-1) > 0).to(param.device).view(-1, *(1,) * (row.ndim - 1))
    row.copy_(torch.where(stepped, as_stack(state["last_point"], group["members"]), row))


@torch.no_grad()
def _keep_gradient(param: Tensor, group: dict[str, Any], state: dict[str, Tensor], *, start: bool) -> None:
    last = as_stack(state["last_grad"], group["members"])
    rows = torch.tensor(active_members(group), device=param.device, dtype=torch.long)
    if start:
        last[rows] = 0
    if param.grad is not None:
        last[rows] += zero_padding([param.grad], group)[0][rows].to(last.dtype)
