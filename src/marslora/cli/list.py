"""``marslora list``: list the plugins with the options that name them, or the options of one plugin."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.table import Table

from marslora.core import plugins
from marslora.core.errors import ConfigError
from marslora.core.plugin_options import AbstractPlugin, OptionHelp, describe_options
from marslora.core.record import suggest
from marslora.core.words import write_value
from marslora.listeners.console import PlainConsole

PACKAGES = {
    "recipes": "compare --method",
    "strategies": "search --strategy",
    "adapters": "search --adapter",
    "methods": "search --adapter",
    "optim": "search --optimizer",
    "gradients": "search --gradients",
    "executors": "search --executor",
    "exporters": "export --to",
    "metrics": "search --metric",
}
"""The command and option that name a plugin, by the package that holds its file."""
NAME = typer.Argument(metavar="[NAME]", help="Plugin whose options to list: a name, or package.module:Class.")


def command(name: Annotated[str | None, NAME] = None) -> None:
    """List every plugin that can be named, or the options of one plugin.

    Your own plugins, outside marslora, are named package.module:Class. A plugin's options follow its name, as in
    mars:sweep=0.25.

    Example: marslora list mars
    """
    for table in [_list_plugins()] if name is None else _list_options(name):
        PlainConsole().print(table)


def _list_plugins() -> Table:
    table = Table("named by", "name", "what it is", box=None)
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for package_name, option in PACKAGES.items():
        package = plugins.find_package(package_name)
        for name in plugins.names(package):
            table.add_row(option, name, plugins.summary(package, name))
    return table


def _list_options(name: str) -> Iterator[Table]:
    """Yield a table for each package that has the plugin: a strategy and a recipe may have the same name."""
    if ":" in name:
        yield _draw_options(name, _describe_class(plugins.find_package("core"), name))
        return
    packages = {each: plugins.find_package(each) for each in PACKAGES}
    places = [place for place, package in packages.items() if name in plugins.names(package)]
    if not places:
        known = {each for package in packages.values() for each in plugins.names(package)}
        raise ConfigError(
            f"`{name}` is not a plugin.{suggest(name, sorted(known))} Name one of those that `marslora list` "
            "lists, or your own as package.module:Class."
        )
    for place in places:
        if place == "metrics":  # functions without options
            yield _draw_options(f"{PACKAGES[place]} {name}", [])
            continue
        find = _describe_recipe if place == "recipes" else _describe_class
        yield _draw_options(f"{PACKAGES[place]} {name}", find(packages[place], name))


def _describe_class(package: ModuleType, name: str) -> list[OptionHelp]:
    return describe_options(plugins.load(package, name, AbstractPlugin))


def _describe_recipe(package: ModuleType, name: str) -> list[OptionHelp]:
    """The arguments of a recipe's function. Those in its ``**options`` belong to the plugin that it trains."""
    function = getattr(importlib.import_module(f"{package.__name__}.{name}"), name)
    parameters = inspect.signature(function).parameters.values()
    named = [OptionHelp(each.name, "", each.default, "") for each in parameters if each.kind is not each.VAR_KEYWORD]
    rest = OptionHelp("any other", "", inspect.Parameter.empty, f"See the plugin `{name}` that the recipe trains.")
    return named if len(named) == len(parameters) else [*named, rest]


def _draw_options(title: str, options: list[OptionHelp]) -> Table:
    table = Table("option", "must be", "default", "what it does", title=title, title_justify="left", box=None)
    for name, must_be, default, text in options or [OptionHelp("none", "", inspect.Parameter.empty, "")]:
        table.add_row(name, must_be, _write_default(default), " ".join(text.split()).replace("``", "`"))
    return table


def _write_default(value: Any) -> str:
    """A default as a user would write it; empty if there is none."""
    return "" if value is inspect.Parameter.empty else write_value(value)
