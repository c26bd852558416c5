"""A recipe by its name: the folder is the registry."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from marslora import recipes
from marslora.core import plugins
from marslora.core.comparison import Recipe
from marslora.core.errors import ConfigError


def find_recipe(name: str, options: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe called ``name`` with these arguments of its function; `ConfigError` where either is unknown."""
    if name not in (known := plugins.names(recipes)):
        raise ConfigError(f"`{name}` is not a recipe. It must be one of {list(known)} (see `marslora list`).")
    make = getattr(importlib.import_module(f"{recipes.__name__}.{name}"), name)
    try:
        found: Recipe = make(**(options or {}))
    except TypeError as error:
        raise ConfigError(f"recipe `{name}` has options that it does not know, or lacks one: {error}.") from None
    return found
