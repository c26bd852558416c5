"""``marslora init``: write a configuration file with every option and its comment."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from marslora.core.config_template import write_template
from marslora.core.errors import ConfigError
from marslora.core.files import write_text
from marslora.core.options import INPUT
from marslora.listeners.console import print_line
from marslora.settings import SEARCH_OPTIONS

SCHEMA = "config.schema.json"
"""The JSON schema of a configuration file; `scripts/config_schema.py` writes it."""
FILE = typer.Argument(help="File to write.", metavar="[FILE]")
MODEL = typer.Option("--model", "-m", help="Model that the file names.", rich_help_panel=INPUT, metavar="MODEL")
TRAIN = typer.Option("--train", "-d", help="Rows that the file names.", rich_help_panel=INPUT, metavar="FILE")


def command(
    file: Annotated[Path, FILE] = Path("marslora.yaml"),
    model: Annotated[str, MODEL] = "MODEL",
    train: Annotated[list[str], TRAIN] = ["train.jsonl"],  # noqa: B006  (typer copies it)
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")] = False,
) -> None:
    """Write a configuration file for `marslora search --config`, with a comment for every option.

    Beside it goes the JSON schema, with which editors complete and check its keys.

    Example: marslora init search.yaml --model ./llava --train train.jsonl
    """
    schema = file.with_name("marslora.schema.json")
    if file.exists() and not force:
        raise ConfigError(f"{file} exists already. Name another file, or overwrite it with --force.")
    head = (
        f"yaml-language-server: $schema={schema.name}\n"
        f"Run it: marslora search --config {file}\n"
        "Every key that is a comment has the value that it shows; remove its # to change it. Flags override this file."
    )
    write_text(file, write_template(SEARCH_OPTIONS, {"model": model, "train": train}, head))
    write_text(schema, resources.files("marslora").joinpath(SCHEMA).read_text(encoding="utf-8"))
    console = Console()
    print_line(console, f"{file}\n{schema}\n\nRun it: marslora search --config {file}")
