"""Commands whose files are imported only when they are run; the list of all commands reads just their docstrings."""

from __future__ import annotations

import ast
import functools
import importlib
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from marslora.cli._options import TableCommand
from marslora.core.record import suggest

HELP_NAMES = {"help_option_names": ["-h", "--help"]}
"""The flags that show a command's help."""


class LazyGroup(TyperGroup):
    """A group of the commands that are files of this package: each defines ``command``, or ``app`` with subcommands."""

    names: tuple[str, ...] = ()
    """Names of the files, in the order of the help."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the names of all commands."""
        return list(self.names)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Return a command that can be listed but not run; None if there is none of this name."""
        return TyperCommand(cmd_name, help=read_summary(cmd_name)) if cmd_name in self.names else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the first word names, ready to be run, and the words that follow."""
        if args and not args[0].startswith("-") and args[0] not in self.names:
            ctx.fail(
                f"There is no command `{args[0]}`.{suggest(args[0], self.names)} `marslora --help` lists all commands."
            )
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name and command else command, rest


def read_summary(name: str) -> str:
    """Return the first line of a command's docstring (of its file's, for one with subcommands) without importing it."""
    tree = ast.parse(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    text = ast.get_docstring(functions.get("command", functions.get("_group", tree))) or ""
    return text.partition("\n")[0]


@functools.cache
def load_command(name: str) -> Any:
    """Return the command of a file, with all its options."""
    module = importlib.import_module(f"{__package__}.{name}")
    if hasattr(module, "app"):
        group = typer.main.get_command(module.app)
        group.name = name
        return group
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings=HELP_NAMES)
    app.command(name, cls=TableCommand)(module.command)
    command: Any = typer.main.get_command(app)
    command.table = getattr(module.command, "table", None)
    return command
