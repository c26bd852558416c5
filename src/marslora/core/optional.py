"""Import optional packages where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from marslora.core.errors import MissingDependencyError


def need(module: str, extra: str) -> ModuleType:
    """Import ``module``. Raises `MissingDependencyError`, which gives the pip command, if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDependencyError(
            f"`{module}` is needed but not installed. Run: pip install 'marslora[{extra}]'"
        ) from None
