"""Floating-point operations, counted while torch dispatches them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

T = TypeVar("T")


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the matrix products, convolutions and attentions run inside it, forward and backward.

    The same counts as `torch.utils.flop_counter`, without its tracking of modules, which recomputed layers break.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` and add the operations it takes."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=result)
        return result


def count_flops(work: Callable[[], T]) -> tuple[T, float]:
    """Run ``work``; return its result and the floating-point operations it took."""
    with FlopCounter() as counter:
        result = work()
    return result, counter.flops
