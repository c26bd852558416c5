"""Where a command's work is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marslora.executors import AbstractExecutor


def executor_of(workers: int) -> AbstractExecutor | None:
    """So many processes at a time; None for this process."""
    if workers == 0:
        return None
    from marslora.executors.processes import Processes

    return Processes(workers)
