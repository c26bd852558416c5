"""``marslora export``: write the decision as settings of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marslora.listeners.console import PlainConsole, print_line

STUDY = typer.Argument(help="Study folder with a decision.")
TO = typer.Option(
    "--to", "-t", help="Exporter: peft, trl, axolotl, ... (see `marslora list`). Repeatable. Default: all."
)
OUT = typer.Option("--out", "-o", help="Folder to write to. Default: exports in the study folder.", metavar="FOLDER")
ROWS = typer.Option("--rows/--no-rows", help="Write training and validation rows in the tool's own layout too.")


def command(
    study: Annotated[Path, STUDY],
    to: Annotated[list[str] | None, TO] = None,
    out: Annotated[Path | None, OUT] = None,
    rows: Annotated[bool, ROWS] = True,
) -> None:
    """Write the decision for PEFT, TRL, Axolotl, LLaMA-Factory, ms-swift, Unsloth or vLLM.

    Example: marslora export studies/llava-1a2b3c4d --to axolotl
    """
    from marslora.exports import export_decision
    from marslora.store.study import Study

    for path in export_decision(Study.open(study), to or (), out, with_rows=rows):
        print_line(PlainConsole(), str(path))
