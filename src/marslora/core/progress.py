"""Report the progress of a study: the interface of listeners, and one progress bar for several packs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from marslora.core.runs import ProgressEvent
from marslora.core.spec import PackSpec


class Listener(Protocol):
    """Receives the progress of a study, e.g. to show it on the console."""

    def stage(self, title: str) -> None:
        """A stage with this title begins."""

    def advance(self, step: ProgressEvent) -> None:
        """A long piece of work made progress."""

    def note(self, text: str) -> None:
        """The user should read this text."""


class SilentListener:
    """A listener that shows nothing."""

    def stage(self, title: str) -> None:
        """Ignore the event, see `Listener`."""

    def advance(self, step: ProgressEvent) -> None:
        """Ignore the event, see `Listener`."""

    def note(self, text: str) -> None:
        """Ignore the event, see `Listener`."""


@dataclass
class ProgressBar:
    """One bar for the training examples of several packs or runs."""

    totals: dict[str, int]
    done: dict[str, float] = field(default_factory=dict)
    task: str = "calibration"
    _sum: float = 0.0

    def __post_init__(self) -> None:
        self._total = sum(self.totals.values())

    @classmethod
    def of(cls, packs: Sequence[PackSpec]) -> ProgressBar:
        """A bar for these packs, at zero."""
        return cls({pack.id: sum(member.until_examples for member in pack.members) for pack in packs})

    def advance(self, step: ProgressEvent) -> ProgressEvent:
        """Return the state of the bar after the progress of one pack, whose id is ``step.task``."""
        if step.task not in self.totals:
            return step
        self._sum += step.done - self.done.get(step.task, 0.0)
        self.done[step.task] = step.done
        return ProgressEvent(task=self.task, done=self._sum, total=self._total, detail=step.detail)

    def finish(self, pack: str) -> ProgressEvent:
        """Return the state of the bar after the end of a pack, even if some of its members ended early."""
        return self.advance(ProgressEvent(task=pack, done=self.totals[pack], total=self.totals[pack]))
