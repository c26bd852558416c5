"""Run specs one after the other in this process."""

from __future__ import annotations

from collections.abc import Sequence

from marslora.core.record import Record
from marslora.executors._base import AbstractExecutor, Emit, resolve


class Inline(AbstractExecutor):
    """One spec after the other, here: the default on one device, and the only one for objects held in memory."""

    def run(self, work: str, specs: Sequence[Record], emit: Emit) -> None:
        """See `AbstractExecutor.run`."""
        function = resolve(work)
        for spec in specs:
            function(spec, emit)
