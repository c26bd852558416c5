"""``marslora report``: write the page of a study again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from marslora.cli._console import print_line

OUT = typer.Option("--out", "-o", help="File to write. Default: report.html in the study folder.", metavar="FILE")
STUDY = typer.Argument(help="Study folder.")


def command(
    study: Annotated[Path, STUDY],
    storage: Annotated[str | None, typer.Option(help="Optuna URL of the study, if it was started with one.")] = None,
    out: Annotated[Path | None, OUT] = None,
) -> None:
    """Write report.html of a study that has a decision, and print the verdict.

    Example: marslora report studies/llava-1a2b3c4d
    """
    from marslora.report import page
    from marslora.store.study import Study

    opened = Study.open(study, storage)
    console = Console()
    path = page.write_report(opened, out)
    for line in page.summarise_study(study):
        print_line(console, line)
    print_line(console, f"\n{path}")
