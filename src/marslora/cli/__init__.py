"""The command line. Each command is a file, and none imports torch before it needs to."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import typer

from marslora.cli._lazy import HELP_NAMES, LazyGroup
from marslora.core.errors import EXIT_CODE, ConfigError, MarsloraError
from marslora.core.plain_text import escape_controls
from marslora.core.stopping import EXIT_INTERRUPTED
from marslora.core.words import BLANK

MOST_CHARACTERS = 4000
"""The longest error that is printed: two screens."""


class Commands(LazyGroup):
    """The commands of marslora."""

    names = (
        *("demo", "init", "search", "compare", "bench", "inspect", "report", "export"),
        *("try", "merge", "list", "data", "doctor"),
    )


app = typer.Typer(
    name="marslora",
    cls=Commands,
    epilog="Start with `marslora demo`: a complete search on a small built-in model, in minutes, without a download.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=HELP_NAMES,
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        import marslora

        print(f"marslora {marslora.__version__}")
        raise typer.Exit


VERSION = typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)


@app.callback()
def _describe(version: Annotated[bool, VERSION] = False) -> None:
    """Find the LoRA ranks your multimodal model needs, before you pay for them."""


def main() -> None:
    """Run the command line. A wrong input ends it with one line on the error stream and exit code 2."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while idle slow down other processes
    try:
        refuse_blank_words(sys.argv[1:])
        sys.exit(app(standalone_mode=False) or 0)
    except MarsloraError as error:
        _fail(str(error))
    except typer.Abort:  # Ctrl-C, where the command itself says nothing about it
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        describe = getattr(error, "format_message", None)  # usage errors of click, whichever package brings it
        if describe is None:
            raise
        _fail(describe())


def refuse_blank_words(words: Sequence[str]) -> None:
    """Raise `ConfigError` for an empty word, or an empty value as in ``--train=``: nothing that is typed has one."""
    for before, word in pairwise(["", *words]):
        flag, equals, value = word.partition("=") if word.startswith("--") else (before, "=", word)
        if equals and not value.strip():
            raise ConfigError(f"`{flag}` {BLANK}" if flag.startswith("-") else f"An argument {BLANK}")


def _fail(message: str) -> None:
    if message:  # empty if there was no command and the help has been shown
        line = escape_controls(" ".join(message.split()))
        print(f"error: {line if len(line) <= MOST_CHARACTERS else f'{line[:MOST_CHARACTERS]} ...'}", file=sys.stderr)
    sys.exit(EXIT_CODE)
