"""A kind is one file: the file's name is the name users type, the folder's listing is the registry."""

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


def names(room: ModuleType) -> tuple[str, ...]:
    """Names of the kinds in a room, read from the folder without importing any of them."""
    found = (module.name for module in pkgutil.iter_modules(room.__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def load(room: ModuleType, name: str, base: type[T]) -> type[T]:
    """The one class in a kind's file that is a ``base``; ``package.module:Class`` names one from elsewhere."""
    if ":" in name:
        return _load_outside(name, base)
    check(name, room)
    module = importlib.import_module(f"{room.__name__}.{name}")
    found = list(_defined_in(module, base))
    if len(found) != 1:
        raise TypeError(f"{module.__name__} must define exactly one {base.__name__}, found {found}.")
    return found[0]


def check(name: str, *packages: ModuleType) -> None:
    """Raise `ConfigError` for a name that is in none of the packages and not of the form ``package.module:Class``."""
    known = sorted(each for package in packages for each in names(package))
    if ":" not in name and name not in known:
        where = " or ".join(package.__name__.rpartition(".")[2] for package in packages)
        raise ConfigError(
            f"`{name}` is not in marslora's {where}. It must be one of {known} or `package.module:Class`."
        )


def build(what: str, name: str, kind: type[T], options: Mapping[str, Any]) -> T:
    """``kind(**options)``; `ConfigError` that names the kind's options for one that it does not have.

    ``what`` is the setting that named the kind, e.g. ``gradients``.
    """
    known = option_names(kind)
    parameters = inspect.signature(kind).parameters.values()
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    if (unknown := sorted(set(options) - set(known))) and not takes_any:
        raise ConfigError(f"`{what}` {name} has no option {unknown}; its options are {list(known)}.")
    try:
        return kind(**options)
    except TypeError as error:
        raise ConfigError(f"`{what}` {name} cannot be made with the options {dict(options)}: {error}.") from error


def option_names(kind: type[object]) -> tuple[str, ...]:
    """The keywords of a kind's constructor."""
    parameters = inspect.signature(kind).parameters.items()
    return tuple(name for name, parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY)


def summary(room: ModuleType, name: str) -> str:
    """The first line of a kind's docstring, read from its file without importing it."""
    source = Path(room.__path__[0], f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def unloaded(room_name: str) -> ModuleType:
    """A room of marslora to be listed: none of what it imports is run."""
    spec = importlib.util.find_spec(f"marslora.{room_name}")
    if spec is None:
        raise ModuleNotFoundError(f"marslora has no room `{room_name}`.")
    return importlib.util.module_from_spec(spec)


def _load_outside(name: str, base: type[T]) -> type[T]:
    module_name, _, class_name = name.partition(":")
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"`{name}` cannot be imported ({error}). Write `package.module:Class`.") from None
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise ConfigError(f"`{name}` must be a subclass of {base.__name__}.")
    return kind


def _defined_in(module: ModuleType, base: type[T]) -> Iterator[type[T]]:
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, base)
            and value.__module__ == module.__name__
            and not value.__name__.startswith("_")
        ):
            yield value
