"""Find the LoRA ranks your multimodal model needs, before you pay for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marslora.api import Decision, attach, compare, inspect, search

__version__ = "0.1.0"
__all__ = ["Decision", "__version__", "attach", "compare", "inspect", "search"]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used."""
    if name in ("search", "compare", "inspect", "attach", "Decision"):
        from marslora import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
