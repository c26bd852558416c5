"""Make the options of a command from a table of options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from marslora.core.options import SIMILAR, OptionRow, OptionTable
from marslora.core.record import find_similar


class TableCommand(TyperCommand):
    """A command that names the option that was meant where there is none of the name that was typed."""

    table: OptionTable | None = None
    """The options of the command as far as `with_options` made them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words that were typed."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if self.table is not None and hasattr(error, "possibilities"):  # of a package that typer may replace
                typed: str = getattr(error, "option_name", "")
                words = [each.lstrip("-") for each in error.possibilities or ()]  # also `config` and `no-final`
                close = [f"--{each}" for each in find_similar(typed.lstrip("-"), words, SIMILAR)]
                error.possibilities = self.table.suggest(typed, "flag") or close
            raise


def with_options(table: OptionTable) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command that takes ``**options``, so that it has the options of the table, grouped in the help.

    The command receives the options that were typed, as texts, booleans and lists of texts; specs parse and check them.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter
            for parameter in inspect.signature(function, eval_str=True).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        parameters = [*own, *map(make_parameter, table.rows)]

        def command(**typed: Any) -> None:
            function(**{name: value for name, value in typed.items() if value is not None and value != []})

        command.__doc__ = function.__doc__
        command.table = table  # type: ignore[attr-defined]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def make_parameter(row: OptionRow) -> inspect.Parameter:
    """Make of a row of the table a parameter that typer turns into an option. Its default None means "not given"."""
    flag = f"{row.flag}/--no-{row.flag.removeprefix('--')}" if row.is_switch else row.flag
    option = typer.Option(
        *filter(None, (flag, row.option.short)),
        help=describe(row),
        metavar=None if row.is_switch else row.metavar,
        show_default=False,
        rich_help_panel=row.option.panel,
    )
    word = bool if row.is_switch else Path if row.type is Path else str
    kind = list[word] if row.is_repeatable else word  # type: ignore[valid-type]
    return inspect.Parameter(
        row.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def describe(row: OptionRow) -> str:
    """The help text of an option, which says if it may be repeated; escaped, so that none of it is read as markup."""
    repeatable = " Repeatable." if row.is_repeatable else ""
    return f"{row.help}{repeatable}".replace("`", "").replace("[", r"\[")
