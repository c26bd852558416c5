"""``marslora demo``: a whole search on the embedded model, without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marslora.cli._run import watch

STUDY = typer.Option("--study", "-o", help="Study folder.", file_okay=False)
TASK = typer.Option(help="vision, language, both, small or null: which part of the model has something to learn.")


def command(
    task: Annotated[str, TASK] = "both",
    study: Annotated[Path, STUDY] = Path("marslora-demo"),
    uniform: Annotated[bool, typer.Option("--uniform/--no-uniform", help="Compare with one uniform rank.")] = True,
) -> None:
    """Search the ranks of a small real multimodal model on embedded data: minutes on two CPU cores.

    It writes the data as ordinary parquet files and then does just what `marslora search` does.
    """
    from marslora import settings as study_settings
    from marslora.demo import settings as embedded

    spec = study_settings.spec_from(embedded.settings(task, study / "data"), "the demo")
    watch(spec, study, uniform=uniform)
