"""How far a study is: who wants to know, and several packs as one progress bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from marslora.core.runs import ProgressEvent
from marslora.core.spec import PackSpec


class Listener(Protocol):
    """What wants to know how far a study is."""

    def stage(self, title: str) -> None:
        """A stage begins."""

    def advance(self, step: ProgressEvent) -> None:
        """A long piece of work has got further."""

    def note(self, text: str) -> None:
        """There is something that a person should read."""


class SilentListener:
    """A listener that shows nothing."""

    def stage(self, title: str) -> None:
        """Do nothing."""

    def advance(self, step: ProgressEvent) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


@dataclass
class ProgressBar:
    """Training examples of a calibration round, over all its packs, as one bar."""

    totals: dict[str, int]
    done: dict[str, float] = field(default_factory=dict)
    task: str = "calibration"

    @classmethod
    def of(cls, packs: Sequence[PackSpec]) -> ProgressBar:
        """A meter at zero."""
        return cls({pack.id: sum(member.until_examples for member in pack.members) for pack in packs})

    def advance(self, step: ProgressEvent) -> ProgressEvent:
        """The bar after a pack (``step.task`` is its id) has got further."""
        if step.task not in self.totals:
            return step
        self.done[step.task] = step.done
        done, total = sum(self.done.values()), sum(self.totals.values())
        return ProgressEvent(task=self.task, done=done, total=total, detail=step.detail)

    def finish(self, pack: str) -> ProgressEvent:
        """The bar after a pack has ended, whether or not all its members got to their ends."""
        return self.advance(ProgressEvent(task=pack, done=self.totals[pack], total=self.totals[pack]))
