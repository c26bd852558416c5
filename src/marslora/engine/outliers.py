"""Keep members apart in 8-bit layers of bitsandbytes, which treat the rows of a batch together.

LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339) computes an input in half precision if it is an outlier in any row.
In a pack, one member's outlier would change the rounding of all others.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def separate_members(model: nn.Module, members: int) -> Iterator[None]:
    """Within it, a layer that looks for outliers gets the rows of each of K ``members`` alone."""
    layers = [module for module in model.modules() if members > 1 and _looks_for_outliers(module)]
    for layer in layers:
        layer.forward = functools.partial(_run_by_member, layer.forward, members)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _looks_for_outliers(module: nn.Module) -> bool:
    state: Any = getattr(module, "state", None)
    return type(module).__name__ == "Linear8bitLt" and float(state.threshold) > 0


def _run_by_member(forward: Callable[[Tensor], Tensor], members: int, x: Tensor) -> Tensor:
    if x.shape[0] % members:
        return forward(x)
    return torch.cat([forward(rows) for rows in x.chunk(members)])
