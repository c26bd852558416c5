"""The options of a plugin: the fields of a nested ``Config``, checked against their types when a user gives them.

Every class that can be named and takes options says them in the same way::

    class SweepStrategy(AbstractStrategy):
        @dataclass(frozen=True, kw_only=True)
        class Config(AbstractStrategy.Config):
            share: float = 0.25
            \"\"\"Length of every run as a share of a full run.\"\"\"

`PluginConfig.of` makes a `Config` from options by name, as a configuration file or a command line gives them. What a
type cannot express (a share of at most 1) is checked in ``__post_init__``, which raises `ConfigError` as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Real
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from marslora.core.errors import ConfigError

TYPE_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    NoneType: "null",
}
"""How errors call the types of options."""


@dataclass(frozen=True, kw_only=True)
class PluginConfig:
    """Base of the options of all plugins. Subclasses are frozen, keyword-only dataclasses."""

    @classmethod
    def of(cls, options: Mapping[str, Any] | None, owner: str) -> Self:
        """The options of plugin ``owner``, lists made tuples; `ConfigError` for an unknown name or a wrong type."""
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in (options or {}).items()}
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(given) - set(known)):
            raise ConfigError(f"{owner} has no option {unknown}. Its options are {known}.")
        hints = get_type_hints(cls)
        for name, value in given.items():
            if not is_of_type(value, hints[name]):
                wanted = describe_type(hints[name])
                raise ConfigError(f"`{name}` of {owner} must be {wanted}, found {value!r}.")
        return cls(**given)


def is_of_type(value: object, hint: Any) -> bool:
    """Whether a value may be given for an option of this type. Whole numbers are numbers, truth values are not."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return value in args
    if origin in (Union, UnionType):
        return any(is_of_type(value, each) for each in args)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        wanted = args[:1] * len(value) if args[-1] is Ellipsis else args
        return len(wanted) == len(value) and all(map(is_of_type, value, wanted))
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, Real if hint is float else origin or hint)


def describe_type(hint: Any) -> str:
    """A type in words, e.g. ``a number or null``, ``one of ['polar', 'newton_schulz']``, ``a list of 2 numbers``."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {list(args)}"
    if origin in (Union, UnionType):
        return " or ".join(map(describe_type, args))
    if origin is tuple:
        count = "" if args[-1] is Ellipsis else f"{len(args)} "
        return f"a list of {count}{describe_type(args[0]).removeprefix('a ')}s"
    return TYPE_WORDS.get(hint) or f"a {getattr(hint, '__name__', hint)}"
