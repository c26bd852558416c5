"""Find plugins by name. A plugin is one file: its name is what users type, and the folder is the registry.

Packages whose plugins can be named: strategies, laws, adapters, methods, optim, gradients, executors, exporters and
recipes. Files that begin with an underscore are not plugins. A class from elsewhere is named ``package.module:Class``.
Options are the fields of the class's ``Config``, see `marslora.core.plugin_options`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from marslora.core.errors import ConfigError

T = TypeVar("T")


def names(package: ModuleType) -> tuple[str, ...]:
    """The names of the plugins in a package, read from the folder without importing any of them."""
    modules = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(name for name in modules if not name.startswith("_")))


def load(package: ModuleType, name: str, base: type[T]) -> type[T]:
    """Import the class of a plugin, which is a ``base``; ``package.module:Class`` names one from elsewhere.

    Raises `ConfigError` for a name that does not exist or a class that is not a ``base``.
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
    """Raise `ConfigError` unless a package has the plugin, or the name looks like ``package.module:Class``."""
    known = sorted(each for package in packages for each in names(package))
    if ":" not in name and name not in known:
        where = " or ".join(package.__name__.rpartition(".")[2] for package in packages)
        raise ConfigError(
            f"`{name}` is not in marslora's {where}. It must be one of {known} or `package.module:Class`."
        )


def build(what: str, name: str, kind: type[T], options: Mapping[str, Any]) -> T:
    """Call ``kind(**options)``. Raises `ConfigError`, which lists the known options, for an unknown one.

    ``what`` is the setting that named the plugin, e.g. ``gradients``.
    """
    check_options(what, name, kind, options)
    known = list(option_names(kind))
    try:
        return kind(**options)
    except TypeError as error:
        raise ConfigError(
            f"`{what}` {name} cannot be made with the options {dict(options)}: {error}. Its options are {known}."
        ) from error


def check_options(what: str, name: str, kind: type[object], options: Mapping[str, Any]) -> None:
    """Raise `ConfigError`, which lists the known options, if a plugin's constructor does not take one of these."""
    known = option_names(kind)
    parameters = inspect.signature(kind).parameters.values()
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    if (unknown := sorted(set(options) - set(known))) and not takes_any:
        raise ConfigError(f"`{what}` {name} has no option {unknown}; its options are {list(known)}.")


def option_names(kind: type[object]) -> tuple[str, ...]:
    """The keyword arguments of a plugin's constructor."""
    parameters = inspect.signature(kind).parameters.items()
    return tuple(name for name, parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY)


def summary(package: ModuleType, name: str) -> str:
    """The first line of a plugin's docstring, read from its file without importing it."""
    source = Path(package.__path__[0], f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def find_package(name: str) -> ModuleType:
    """A package of marslora whose plugins can be listed, without running any of its imports."""
    spec = importlib.util.find_spec(f"marslora.{name}")
    if spec is None:
        raise ModuleNotFoundError(f"marslora has no package `{name}`.")
    return importlib.util.module_from_spec(spec)


def _load_outside(name: str, base: type[T]) -> type[T]:
    module_name, _, class_name = name.partition(":")
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"`{name}` cannot be imported ({error}). Write `package.module:Class`.") from None
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise ConfigError(f"`{name}` must be a subclass of {base.__name__}, found {kind!r}.")
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
