"""Recipes by name: the folder is the registry; ``package.module:function`` names one from elsewhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from marslora import recipes
from marslora.core import plugins
from marslora.core.comparison import Recipe
from marslora.core.errors import ConfigError


def find_recipe(name: str, options: Mapping[str, Any] | None = None) -> Recipe:
    """Call the recipe's function with these options and return its `Recipe`.

    ``name`` is a file of this folder, or ``package.module:function``. Raises `ConfigError` if there is no such
    function, if it does not take the options, or if it returns anything else.
    """
    make = _load_function(name)
    options = dict(options or {})
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        parameters = inspect.signature(make).parameters.values()
        known = ", ".join(str(each.replace(annotation=inspect.Parameter.empty)) for each in parameters)
        raise ConfigError(
            f"the recipe `{name}` cannot be built with the options {options}: {error}. Its options are "
            f"{known or 'none'}."
        ) from None
    recipe = make(**options)
    if not isinstance(recipe, Recipe):
        raise ConfigError(
            f"`{name}` must return a `marslora.core.comparison.Recipe`, found {recipe!r}. Name a function that does."
        )
    return recipe


def describe_recipe(name: str) -> str:
    """The first line of a recipe's docstring: of its file, or of its function if it is from elsewhere."""
    if ":" in name:
        return (inspect.getdoc(_load_function(name)) or "").partition("\n")[0]
    return plugins.summary(recipes, name)


def _load_function(name: str) -> Callable[..., Any]:
    if ":" not in name:
        if name not in (known := plugins.names(recipes)):
            raise ConfigError(
                f"`{name}` is not a recipe. Name one of {list(known)} (see `marslora list`), or your own as "
                "`package.module:function`, a function that returns a `Recipe`."
            )
        name = f"{recipes.__name__}.{name}:{name}"
    try:
        function = plugins.import_object(name)
    except ConfigError as error:
        raise ConfigError(f"the recipe {error} Options are written as in `asymlora:rank=8`.") from None
    if not callable(function):
        raise ConfigError(f"`{name}` must be a function that returns a `Recipe`, found {function!r}.")
    return function  # type: ignore[no-any-return]
