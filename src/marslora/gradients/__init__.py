"""Gradients: those of several objectives in, one out.

`SeparateGradients` is the door for a training loop; a kind only sees inner products and answers with weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marslora.gradients._separate import SeparateGradients

__all__ = ["SeparateGradients"]


def __getattr__(name: str) -> Any:
    """``SeparateGradients``, without making a listing of the kinds load torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from marslora.gradients import _separate

    return _separate.SeparateGradients
