"""``marslora demo``: a whole search on the embedded model, without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from marslora.cli._options import with_options
from marslora.cli._run import watch_study
from marslora.core.options import OptionTable
from marslora.demo.tasks import TASKS
from marslora.run_options import RunOptions

DEMO_OPTIONS = OptionTable.of(RunOptions, without=("study", "uniform"))
"""The options of `marslora search` that the demo has too; its model, data and training are fixed."""
STUDY = typer.Option("--study", "-o", help="Study folder.", file_okay=False, metavar="FOLDER")
TASK = typer.Option(
    help="What the model has to learn. " + " ".join(f"{name}: {task.description}" for name, task in TASKS.items()),
    metavar="TASK",
)


@with_options(DEMO_OPTIONS)
def command(
    task: Annotated[str, TASK] = "both",
    study: Annotated[Path, STUDY] = Path("marslora-demo"),
    uniform: Annotated[bool, typer.Option("--uniform/--no-uniform", help="Compare with one uniform rank.")] = True,
    **options: Any,
) -> None:
    """Search the ranks of a small but real multimodal model on built-in data, in minutes on two CPU cores.

    Writes the data as ordinary Parquet files, then does the same as `marslora search`.

    Example: marslora demo --task vision
    """
    from marslora.checks import check_run
    from marslora.demo.settings import make_settings
    from marslora.settings import StudySettings, make_spec

    run_options = DEMO_OPTIONS.parse(RunOptions, options, "the demo", "flag", list(options))
    check_run(run_options)  # what is wrong is said before the rows are written
    settings = StudySettings.parse(make_settings(task, study / "data"), "the demo")
    watch_study(make_spec(settings), run_options.model_copy(update={"study": study, "uniform": uniform}))
