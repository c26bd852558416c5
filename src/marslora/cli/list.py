"""``marslora list``: the plugins that can be named, and the option that names each."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from marslora.core import plugins

PACKAGES = {
    "recipes": "compare --method",
    "strategies": "search --strategy",
    "adapters": "search --adapter",
    "methods": "search --adapter",
    "optim": "search --optimizer",
    "gradients": "search --gradients",
    "executors": "search --executor",
    "exporters": "export --to",
}
"""The option that names a plugin, by the package in which it is a file."""


def command() -> None:
    """List every plugin that can be named, and the option that names it.

    A plugin of your own, outside of marslora, is named by package.module:Class. Options follow the name of a plugin,
    as in mars:sweep=0.25.

    Example: marslora list
    """
    table = Table("named by", "name", "what it is", box=None)
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for package_name, option in PACKAGES.items():
        package = plugins.find_package(package_name)
        for name in plugins.names(package):
            table.add_row(option, name, escape(plugins.summary(package, name)))
    Console().print(table)
