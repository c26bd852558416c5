"""Optimizers: gradients in, updates out, each member of a pack for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marslora.optim._peft_groups import peft_groups

__all__ = ["peft_groups"]


def __getattr__(name: str) -> Any:
    """``peft_groups``, without making a listing of the kinds load torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from marslora.optim import _peft_groups

    return _peft_groups.peft_groups
