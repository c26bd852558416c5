"""The command line. Each command is a file; none of them imports torch before it has to."""

from __future__ import annotations

import os
import sys

import typer

from marslora.cli import bench, compare, data, demo, export, inspect, report, search
from marslora.cli import list as list_plugins
from marslora.core.errors import EXIT_CODE, MarsloraError

app = typer.Typer(
    name="marslora",
    help="Find the LoRA ranks your multimodal model needs, before you pay for them.",
    epilog="Start with `marslora demo`: a whole search on a small embedded model, in minutes, without a download.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, search, compare, bench, inspect, report, export, list_plugins):
    app.command(name=command.__name__.rpartition(".")[2])(command.command)
app.add_typer(data.app)


def main() -> None:
    """Run the command line; a user's error is one line and exit code 2."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin make every other process slow
    try:
        app()
    except MarsloraError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_CODE)
