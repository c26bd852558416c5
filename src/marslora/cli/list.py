"""``marslora kinds``: what can be named on the command line."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from marslora.core import plugins

ROOMS = {
    "recipe": "recipes",
    "strategy": "strategies",
    "law": "laws",
    "adapter": "adapters",
    "method": "methods",
    "optimizer": "optim",
    "gradients": "gradients",
    "executor": "executors",
    "exporter": "exporters",
}


def command() -> None:
    """List every recipe, strategy, law, adapter, optimizer, combiner, executor and exporter that can be named.

    A kind of your own is named by `package.module:Class`.
    """
    table = Table("what", "name", "in one line", box=None)
    for what, room_name in ROOMS.items():
        room = plugins.unloaded(room_name)
        for name in plugins.names(room):
            table.add_row(what, name, plugins.summary(room, name))
    Console().print(table)
