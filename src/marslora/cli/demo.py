"""``marslora demo``: a whole search on the embedded model, without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marslora.cli._run import watch
from marslora.demo.tasks import TASKS

STUDY = typer.Option("--study", "-o", help="Study folder.", file_okay=False)
TASK = typer.Option(
    help="What the model has to learn. " + " ".join(f"{name}: {task.description}" for name, task in TASKS.items()),
    metavar="TASK",
)


def command(
    task: Annotated[str, TASK] = "both",
    study: Annotated[Path, STUDY] = Path("marslora-demo"),
    uniform: Annotated[bool, typer.Option("--uniform/--no-uniform", help="Compare with one uniform rank.")] = True,
) -> None:
    """Search the ranks of a small real multimodal model on embedded data: minutes on two CPU cores.

    It writes the data as ordinary parquet files and then does just what `marslora search` does.
    """
    from marslora import settings as study_settings
    from marslora.demo.settings import make_settings

    spec = study_settings.spec_from(make_settings(task, study / "data"), "the demo")
    watch(spec, study, uniform=uniform)
