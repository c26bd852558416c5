"""Searchers: strategies with their options and budgets, the standard ones, and how a command line names others."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from marslora import strategies
from marslora.core import plugins
from marslora.core.errors import ConfigError
from marslora.strategies import AbstractStrategy

REFERENCE = "successive halving, eta 4"
"""The family that others are compared with by default: it needs no law and is hard to beat."""
SYNTAX = "STRATEGY[:option=value,...][@BUDGET], with / between values that one family ranges over"
"""How a family is written on a command line."""
EXAMPLE = "successive_halving:eta=4,first_rung=0.0156/0.0625, or mars@0.1/0.2/0.4"
"""Two families in that notation."""


@dataclass(frozen=True)
class Searcher:
    """A strategy with its options and budget. Searchers of one family differ only in what they spend."""

    family: str
    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    budget: float | None = None

    @property
    def setting(self) -> str:
        """What tells it from the others of its family."""
        given = {**self.options, **({} if self.budget is None else {"budget": self.budget})}
        return ", ".join(f"{name}={format_value(value)}" for name, value in given.items())

    def make_strategy(self) -> AbstractStrategy:
        """The strategy with its options; `ConfigError` for wrong ones."""
        return plugins.load(strategies, self.strategy, AbstractStrategy)(**self.options)


def format_value(value: object) -> str:
    """An option's value, numbers with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


BUDGETS = (0.1, 0.15, 0.25, 0.4, 0.6, 1.0, 2.0)
"""Full runs of calibration over which searches with a budget are compared."""


HALVING = MappingProxyType({"first_rung": 1 / 16})
"""First rung of halving and ASHA: the shortest of 1/64 to 1/16 has a few steps only where full runs are short."""


def standard_searchers() -> tuple[Searcher, ...]:
    """What a user could choose, over the range of costs that each family allows."""
    return (
        Searcher("mars", "mars"),
        *(Searcher("mars by budget", "mars", budget=budget) for budget in BUDGETS),
        *(Searcher("rank 16 at n rates", "rate_sweep", {"num_rates": num}) for num in (1, 2, 3, 4)),
        *(Searcher("ranks only, middle rate", "ranks_only", {"fit_laws": False}, budget) for budget in BUDGETS[:5]),
        *(Searcher("MARS as published", "mars_paper", budget=budget) for budget in (0.25, 0.5, 1.0)),
        *(Searcher("random, full runs", "random_search", budget=budget) for budget in (1.0, 2.0, 4.0)),
        *(
            Searcher(
                f"successive halving, eta {eta}",
                "successive_halving",
                {"eta": eta, "num_begun": num, "first_rung": 1 / 16},
            )
            for eta in (2, 4)
            for num in (3, 4, 6, 8, 12, 24)
        ),
        *(Searcher("ASHA, eta 4", "asha", HALVING, budget) for budget in (0.25, 0.4, 0.6, 1.0, 2.0)),
        *(
            Searcher(f"Optuna {sampler}, quarter runs", "optuna_sampler", {"sampler": sampler, "share": 0.25}, budget)
            for sampler in ("tpe", "gp", "random")
            for budget in (0.5, 1.0, 2.0, 4.0)
        ),
        *(
            Searcher(f"Optuna {sampler}, full runs", "optuna_sampler", {"sampler": sampler}, budget)
            for sampler in ("tpe", "gp")
            for budget in (1.0, 2.0, 4.0)
        ),
    )


def parse_searchers(word: str) -> tuple[Searcher, ...]:
    """One family: a strategy in every combination of its options' values and budgets; `ConfigError` if it is unclear.

    For example, ``mars@0.1/0.2`` gives two searchers, see `SYNTAX`.
    """
    head, _, budgets = word.partition("@")
    before, _, tail = head.rpartition(":")
    name, given = (before, tail) if "=" in tail else (head, "")
    options = dict(_parse_option(text, word) for text in re.split(r",(?![^\[]*\])", given) if given)
    fixed = [f"{key}={format_value(values[0])}" for key, values in options.items() if len(values) == 1]
    family = " ".join([name, *fixed])
    spent = [_parse_budget(text, word) for text in budgets.split("/")] if budgets else [None]
    searchers = tuple(
        Searcher(family, name, dict(zip(options, values, strict=True)), budget)
        for values in itertools.product(*options.values())
        for budget in spent
    )
    for searcher in searchers:
        searcher.make_strategy()
    return searchers


def add_reference(searchers: Sequence[Searcher], reference: str, known: Sequence[Searcher]) -> tuple[Searcher, ...]:
    """The searchers and, if they lack it, the known family that they are compared with; `ConfigError` if unknown."""
    families = dict.fromkeys(searcher.family for searcher in searchers)
    if reference in families:
        return tuple(searchers)
    added = tuple(searcher for searcher in known if searcher.family == reference)
    if not added:
        known_families = dict.fromkeys([*families, *(searcher.family for searcher in known)])
        raise ConfigError(f"`--reference` must be one of {list(known_families)}, found {reference!r}.")
    return (*searchers, *added)


def _parse_option(text: str, word: str) -> tuple[str, list[Any]]:
    name, equals, values = text.partition("=")
    if not equals or not name or not values:
        raise ConfigError(f"`--strategy` must look like {SYNTAX} (e.g. {EXAMPLE}), found {word!r}.")
    return name, [_parse_value(value, word) for value in values.split("/")]


def _parse_value(text: str, word: str) -> Any:
    import yaml

    if "e" in text.lower():  # YAML reads 1e-3 as a text
        with contextlib.suppress(ValueError):
            return float(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(
            f"`--strategy {word}`: the value {text!r} is not valid YAML. Write e.g. 4 or [4,2]."
        ) from None


def _parse_budget(text: str, word: str) -> float:
    try:
        budget = float(text)
    except ValueError:
        budget = -1.0
    if budget <= 0:
        raise ConfigError(
            f"A budget must be a number of full runs above 0, found {text!r} in {word!r}. Write e.g. mars@0.2."
        )
    return budget
