"""The embedded model on one of its tasks: a study that runs anywhere in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CALIBRATION_COST = 2.0
"""Run equivalents: its full run is short, and a shorter calibration would end before anything has converged."""


def settings(task: str, folder: Path) -> dict[str, Any]:
    """The settings of a study of the embedded model; the task's rows are written into ``folder`` as parquet files."""
    from marslora.demo import tasks
    from marslora.demo.model import embedded_folder

    paths = tasks.ensure_task(task, folder)
    defaults = tasks.TASKS[task]
    return {
        "model": {"path": str(embedded_folder())},
        "data": {split: [str(path)] for split, path in paths.items()},
        "training": dict(defaults.training),
        "search": {"strategy": {"name": "mars"}, "budget": CALIBRATION_COST},
        "ranks": list(defaults.ranks),
    }
