"""The settings of a study of the embedded model: a whole search that runs anywhere in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from marslora.demo.tasks import TASKS, find_task


def make_settings(task: str, folder: Path) -> dict[str, Any]:
    """The settings of a study of ``task``, one of `TASKS`; its rows are written into ``folder`` as Parquet files.

    Ranks and learning rates are left to the search. Raises `ConfigError` for an unknown task.
    """
    find_task(task)
    from marslora.demo.model import embedded_folder
    from marslora.demo.task_files import ensure_task

    paths = ensure_task(task, folder)
    return {
        "model": {"path": str(embedded_folder())},
        "data": {split: [str(path)] for split, path in paths.items()},
        "training": {name: value for name, value in TASKS[task].training.items() if name != "learning_rate"},
        "search": {"strategy": {"name": "mars"}},
    }
