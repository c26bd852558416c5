"""Find plugins by name. A plugin is one file: its name is what users type, and the folder is the registry.

Packages whose plugins can be named: strategies, adapters, methods, optim, gradients, executors, exporters and recipes.
Files that begin with an underscore are not plugins. A class from elsewhere is named ``package.module:Class``. Options
are the fields of the class's ``Config``, see `marslora.core.plugin_options`; a recipe is a function with arguments.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from marslora.core.errors import ConfigError
from marslora.core.record import suggest

T = TypeVar("T")


def names(package: ModuleType) -> tuple[str, ...]:
    """The names of the plugins in a package, read from the folder without importing any of them."""
    modules = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(name for name in modules if not name.startswith("_")))


def load(package: ModuleType, name: str, base: type[T]) -> type[T]:
    """Import the class of a plugin: a file of ``package``, or ``package.module:Class`` for one from elsewhere.

    Raises `ConfigError` if there is no such plugin or if the class is not a subclass of ``base``.
    """
    if ":" in name:
        return _load_outside(name, base)
    check(name, package)
    module = importlib.import_module(f"{package.__name__}.{name}")
    classes = list(_iterate_classes(module, base))
    if len(classes) != 1:
        raise TypeError(f"{module.__name__} must define exactly one {base.__name__}, found {classes}.")
    return classes[0]


def check(name: str, *packages: ModuleType) -> None:
    """Raise `ConfigError` unless one of the packages has the plugin or the name contains a colon."""
    known = sorted(each for package in packages for each in names(package))
    if ":" not in name and name not in known:
        where = " or ".join(package.__name__ for package in packages)
        raise ConfigError(
            f"`{name}` is not a plugin in {where}.{suggest(name, known)} Name one of {known}, or your own as "
            "`package.module:Class`."
        )


def import_object(name: str) -> Any:
    """What ``package.module:name`` names. Raises `ConfigError` if there is no such thing, or its module fails."""
    module_name, _, own_name = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), own_name)
    except Exception as error:  # the module is anyone's, and importing it runs it
        raise ConfigError(
            f"`{name}` cannot be imported ({type(error).__name__}: {error}). Write `package.module:name`, and check "
            "that Python finds the module."
        ) from None


def summary(package: ModuleType, name: str) -> str:
    """The first line of a plugin's docstring, read from its file without importing it."""
    source = Path(package.__path__[0], f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def find_package(name: str) -> ModuleType:
    """The package ``marslora.NAME``, whose plugins can then be listed, without running any of its imports."""
    spec = importlib.util.find_spec(f"marslora.{name}")
    if spec is None:
        raise ModuleNotFoundError(f"marslora has no package `{name}`.")
    return importlib.util.module_from_spec(spec)


def _load_outside(name: str, base: type[T]) -> type[T]:
    kind = import_object(name)
    if not (isinstance(kind, type) and issubclass(kind, base)):
        wanted = "class" if base is object else f"subclass of {base.__name__}"
        raise ConfigError(f"`{name}` must be a {wanted}, found {kind!r}. Name a class that is.")
    return kind


def _iterate_classes(module: ModuleType, base: type[T]) -> Iterator[type[T]]:
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, base)
            and value.__module__ == module.__name__
            and not value.__name__.startswith("_")
        ):
            yield value
