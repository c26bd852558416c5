"""Run specs one after the other in this process."""

from __future__ import annotations

from collections.abc import Sequence

from marslora.core.record import Record
from marslora.core.runs import Emit
from marslora.executors._base import AbstractExecutor, resolve_work


class Inline(AbstractExecutor):
    """Runs one spec after the other: the default on one device, and the only choice for objects held in memory."""

    def run(self, work: str, specs: Sequence[Record], emit: Emit) -> None:
        """Run the specs here, as `AbstractExecutor.run` describes."""
        function = resolve_work(work)
        for spec in specs:
            function(spec, emit)
