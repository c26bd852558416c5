"""A folder whose files are the registry: every module of it counts, unless its name begins with an underscore."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def import_modules(package: str, folders: tuple[str, ...]) -> list[ModuleType]:
    """The public modules in ``folders`` (the ``__path__`` of ``package``), imported, ordered by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(folders) if not module.name.startswith("_"))
    return [importlib.import_module(f"{package}.{name}") for name in names]
