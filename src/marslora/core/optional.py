"""Optional packages, asked for where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from marslora.core.errors import MissingDependencyError


def need(module: str, extra: str) -> ModuleType:
    """The imported ``module``, or an error with the pip line that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDependencyError(
            f"`{module}` is needed here and not installed. Run: pip install 'marslora[{extra}]'"
        ) from None
