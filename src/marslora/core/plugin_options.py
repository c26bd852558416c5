"""The options of a plugin: the fields of its nested ``Config``, given as keyword arguments of its constructor.

Every class that can be named declares its options in the same way::

    class GridStrategy(AbstractStrategy):
        @dataclass(frozen=True, kw_only=True)
        class Config(AbstractStrategy.Config):
            share: Annotated[float, Field(gt=0, le=1)] = 0.25
            \"\"\"Length of every run as a share of a full run.\"\"\"

``GridStrategy(share=0.5)`` checks the options and keeps them as ``config``. Values are checked against the type and the
limits of a field, and its docstring is its help (`describe_options`). What these cannot express, such as a limit on the
sum of two options, is checked in ``__post_init__``, which also raises `ConfigError`.
"""

from __future__ import annotations

import ast
import inspect
import operator
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from numbers import Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Self, Union, get_args, get_origin, get_type_hints

from marslora.core.errors import ConfigError

TYPE_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "a mapping",
    NoneType: "null",
}
"""How error messages name the types of options."""
LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "gt": ("above", operator.gt),
    "ge": ("of at least", operator.ge),
    "lt": ("below", operator.lt),
    "le": ("of at most", operator.le),
}
"""How error messages name the limits of `pydantic.Field`, and how each is checked."""


@dataclass(frozen=True, kw_only=True)
class PluginConfig:
    """Base of the options of all plugins. Subclasses are frozen, keyword-only dataclasses."""

    @classmethod
    def of(cls, options: Mapping[str, Any] | None, owner: str) -> Self:
        """Check options by name and return them as a config, with lists as tuples.

        Raises `ConfigError`, which names the plugin ``owner``, for an unknown option or a wrong value.
        """
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in (options or {}).items()}
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(given) - set(known)):
            raise ConfigError(f"{owner} has no option {unknown}. Its options are {known}.")
        hints = get_type_hints(cls, include_extras=True)
        for name, value in given.items():
            if not is_of_type(value, hints[name]):
                wanted = describe_type(hints[name])
                raise ConfigError(f"`{name}` of {owner} must be {wanted}, found {value!r}.")
        return cls(**given)

    def as_dict(self) -> dict[str, Any]:
        """Every option by name, from which `of` makes an equal record."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class AbstractPlugin:
    """The base of every class that a user can name, whether in a folder of marslora or as ``package.module:Class``."""

    @dataclass(frozen=True, kw_only=True)
    class Config(PluginConfig):
        """The options of the plugin, which are keyword arguments of its constructor."""

    config: Config

    def __init__(self, /, **options: Any) -> None:
        """Check the options and keep them as ``config``; `ConfigError` for an unknown name or a wrong value."""
        self.config = self.Config.of(options, type(self).__name__)

    def __init_subclass__(cls, **more: Any) -> None:
        """Show the options in the signature, as `help` prints it."""
        super().__init_subclass__(**more)
        cls.__signature__ = _build_signature(cls)  # type: ignore[attr-defined]


class OptionHelp(NamedTuple):
    """What a user needs to know about one option."""

    name: str
    must_be: str
    """Its type and limits in words."""
    default: Any
    help: str
    """The docstring of the field."""


def describe_options(kind: type[AbstractPlugin]) -> list[OptionHelp]:
    """The options of a plugin with their types, defaults and docstrings, in the order of the fields."""
    hints = get_type_hints(kind.Config, include_extras=True)
    helps: dict[str, str] = {}
    for config in reversed(kind.Config.__mro__):
        if issubclass(config, PluginConfig):
            helps |= dict(_iterate_docstrings(config))
    return [
        OptionHelp(field.name, describe_type(hints[field.name]), field.default, helps.get(field.name, ""))
        for field in fields(kind.Config)
    ]


def is_of_type(value: object, hint: Any) -> bool:
    """Whether a value is valid for an option of this type. A whole number is a valid number; true and false are not."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        return is_of_type(value, args[0]) and all(LIMITS[name][1](value, limit) for name, limit in _limits(hint))
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
    """A type in words, e.g. ``a number above 0 or null``, ``one of ['polar', 'svd']``, ``a list of 2 numbers``."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return "any value"
    if origin is Annotated:
        limits = " and ".join(f"{LIMITS[name][0]} {limit:g}" for name, limit in _limits(hint))
        return f"{describe_type(args[0])} {limits}".rstrip()
    if origin is Literal:
        return f"one of {list(args)}"
    if origin in (Union, UnionType):
        return " or ".join(map(describe_type, args))
    if origin is tuple:
        count = "" if args[-1] is Ellipsis else f"{len(args)} "
        what, limits = describe_type(_without_limits(args[0])), describe_type(args[0])
        return f"a list of {count}{what.removeprefix('a ')}s{limits.removeprefix(what)}"
    return TYPE_WORDS.get(origin or hint) or f"a {getattr(hint, '__name__', hint)}"


def _without_limits(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _limits(hint: Any) -> Iterator[tuple[str, Any]]:
    """(name, limit) of each limit in ``Annotated[type, Field(ge=0, lt=1)]``."""
    for field in hint.__metadata__:
        for limit in getattr(field, "metadata", ()):
            yield from ((name, getattr(limit, name)) for name in LIMITS if hasattr(limit, name))


def _build_signature(kind: type[AbstractPlugin]) -> inspect.Signature:
    """The constructor's signature with the options instead of ``**options``."""
    defaults = {field.name: field.default for field in fields(kind.Config)}
    _, *parameters = inspect.signature(kind.__init__).parameters.values()
    own = {each.name: each for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD}
    first = [each.replace(default=defaults.get(name, each.default)) for name, each in own.items()]
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [inspect.Parameter(name, keyword, default=value) for name, value in defaults.items() if name not in own]
    return inspect.Signature([*first, *options])


def _iterate_docstrings(config: type) -> Iterator[tuple[str, str]]:
    """(field, docstring) of the fields that a class itself defines; nothing if its source is not at hand."""
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    except OSError:
        return
    assert isinstance(definition, ast.ClassDef)
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            yield field.target.id, inspect.cleandoc(str(text.value.value))
