"""Entrants as they are written on a command line."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Sequence
from typing import Any

from marslora.core.errors import ConfigError
from marslora.replay.benchmark import Searcher, shown

SYNTAX = "STRATEGY[:option=value,...][@BUDGET], with / between values that one family ranges over"
EXAMPLE = "successive_halving:eta=4,first_rung=0.0156/0.0625, or mars@0.1/0.2/0.4"


def parse_searchers(word: str) -> tuple[Searcher, ...]:
    """One family: a strategy in every combination of its options' values and budgets. Raises `ConfigError`."""
    head, _, budgets = word.partition("@")
    before, _, tail = head.rpartition(":")
    name, given = (before, tail) if "=" in tail else (head, "")
    options = dict(_option(text, word) for text in re.split(r",(?![^\[]*\])", given) if given)
    fixed = [f"{key}={shown(values[0])}" for key, values in options.items() if len(values) == 1]
    family = " ".join([name, *fixed])
    spent = [_budget(text, word) for text in budgets.split("/")] if budgets else [None]
    found = tuple(
        Searcher(family, name, dict(zip(options, values, strict=True)), budget)
        for values in itertools.product(*options.values())
        for budget in spent
    )
    for entrant in found:
        entrant.make()
    return found


def _option(text: str, word: str) -> tuple[str, list[Any]]:
    name, equals, values = text.partition("=")
    if not equals or not name or not values:
        raise ConfigError(f"`--strategy` must look like {SYNTAX} (e.g. {EXAMPLE}), found {word!r}.")
    return name, [_value(value, word) for value in values.split("/")]


def _value(text: str, word: str) -> Any:
    import yaml

    if "e" in text.lower():  # YAML takes 1e-3 for a word
        with contextlib.suppress(ValueError):
            return float(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"`--strategy {word}`: a value is no YAML, found {text!r}.") from None


def _budget(text: str, word: str) -> float:
    try:
        budget = float(text)
    except ValueError:
        budget = -1.0
    if budget <= 0:
        raise ConfigError(f"a budget must be a number of full runs above 0, found {text!r} in {word!r}.")
    return budget


def with_reference(entrants: Sequence[Searcher], reference: str, known: Sequence[Searcher]) -> tuple[Searcher, ...]:
    """The entrants and, where they lack it, the family that they are compared with. Raises `ConfigError`."""
    families = dict.fromkeys(entrant.family for entrant in entrants)
    if reference in families:
        return tuple(entrants)
    added = tuple(entrant for entrant in known if entrant.family == reference)
    if not added:
        known_families = dict.fromkeys([*families, *(entrant.family for entrant in known)])
        raise ConfigError(f"`--reference` must be one of {list(known_families)}, found {reference!r}.")
    return (*entrants, *added)
