"""``marslora report``: write the page of a study again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marslora.listeners.console import PlainConsole, print_line

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
    from marslora.report.words import write_summary_lines
    from marslora.store.study import Study

    with Study.open(study, storage) as opened:
        data = page.write_report(opened, out)
    console = PlainConsole()
    for line in write_summary_lines(data):
        print_line(console, line)
    print_line(console, f"\n{out or study / page.NAME}")
