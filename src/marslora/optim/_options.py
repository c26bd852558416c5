"""The options of an optimizer: their names, defaults and types, and one error for whatever is wrong with them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from numbers import Real
from types import UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from marslora.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Options of every optimizer. Each is also a number of the parameter groups, where it can be scheduled."""

    lr: Any = 1e-3
    """Learning rate: one number, or one for each member."""
    weight_decay: Any = 0.0
    """Decoupled, ``x (1 - lr wd)``: one number, or one for each member."""
    b_ratio: float = 1.0
    """How many times faster role B learns (LoRA+, arXiv 2402.12354)."""

    @classmethod
    def of(cls, options: Mapping[str, Any], owner: str) -> Self:
        """The options of optimizer ``owner`` by name; `ConfigError` for an unknown name or an unusable value."""
        known = {field.name: field for field in fields(cls)}
        if unknown := sorted(set(options) - set(known)):
            raise ConfigError(f"{owner} has no option {unknown}. Its options are {[*known]}.")
        hints = get_type_hints(cls)
        return cls(**{name: _check_value(known[name], hints[name], value, owner) for name, value in options.items()})

    def group_numbers(self) -> dict[str, Any]:
        """The defaults of a parameter group."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def build_signature(config: type[OptimizerConfig]) -> inspect.Signature:
    """``(params, lr, *, option=default, ...)``: what `help` shows of a constructor that takes these options."""
    positional, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(field.name, positional if field.name == "lr" else keyword, default=field.default)
        for field in fields(config)
    ]
    return inspect.Signature([inspect.Parameter("params", positional), *options])


def _check_value(field: Field[Any], hint: Any, value: Any, owner: str) -> Any:
    """The value, a list made a tuple if the default is one; `ConfigError` if it does not fit the option's type."""
    default = field.default
    choices = _list_choices(hint)
    if choices and value not in choices:
        raise ConfigError(f"`{field.name}` of {owner} must be one of {list(choices)}, found {value!r}.")
    if choices or default is MISSING or hint is Any:
        return value
    if isinstance(default, tuple):
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != len(default):
            raise ConfigError(f"`{field.name}` of {owner} must be {len(default)} numbers, found {value!r}.")
        return tuple(value)
    wanted = bool if isinstance(default, bool) else int if isinstance(default, int) else Real
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise ConfigError(f"`{field.name}` of {owner} must be like its default {default!r}, found {value!r}.")
    return value


def _list_choices(hint: Any) -> tuple[Any, ...]:
    """The values that a `Literal` allows, also within a union with None; empty for other types."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        choices = [choice for each in get_args(hint) for choice in _list_choices(each)]
        return (*choices, None) if choices else ()
    return ()
