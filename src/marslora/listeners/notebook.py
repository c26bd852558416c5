"""Show the progress of a study below the cell of a notebook, as one piece of HTML that is updated in place.

It needs no widgets, so it looks the same in Jupyter, VS Code and Colab, and stays in the saved notebook.
"""

from __future__ import annotations

import html
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from marslora.core.runs import ProgressEvent

EVERY_SECONDS = 0.5
"""Seconds between two updates of the bars: smooth enough to watch, and little work for the notebook."""


@dataclass
class Line:
    """A line that is shown: a stage's title, a note, or a bar."""

    clock: str
    text: str
    is_title: bool = False
    done: float | None = None
    """How much of a bar is done, from 0 to 1; None if the line has no bar."""
    started: float = field(default_factory=lambda: time.monotonic())
    detail: str = ""

    def render(self) -> str:
        """The line as HTML."""
        if self.done is None:
            style = "font-weight: 600" if self.is_title else "padding-left: 1.5em"
            return f'<div style="{style}"><span style="opacity: 0.6">{self.clock}</span> {html.escape(self.text)}</div>'
        words = ", ".join(filter(None, (f"{self.done:.0%}", self._describe_rest(), html.escape(self.detail))))
        return (
            f'<div style="padding-left: 1.5em">{html.escape(self.text)} '
            f'<progress value="{self.done:.4f}" max="1" style="vertical-align: middle"></progress> {words}</div>'
        )

    def _describe_rest(self) -> str:
        if not self.done or self.done >= 1:
            return ""
        return f"{format_clock((time.monotonic() - self.started) * (1 - self.done) / self.done)} left"


def format_clock(seconds: float) -> str:
    """Minutes and seconds: ``3:07``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class NotebookListener:
    """A listener that draws stages, bars and notes below the cell that runs. Use as a context manager."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._shown = -EVERY_SECONDS
        self._lines: list[Line] = []
        self._bars: dict[str, Line] = {}
        self._handle: Any = None

    def __enter__(self) -> NotebookListener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._add(Line(self._clock(), "Interrupted." if kind is KeyboardInterrupt else "Stopped by an error."))
        if self._lines:
            self._show()

    def stage(self, title: str) -> None:
        """Add a stage's title with the time since the start; later bars stand below it."""
        self._bars.clear()
        self._add(Line(self._clock(), title, is_title=True))

    def advance(self, step: ProgressEvent) -> None:
        """Move a bar, which is drawn at most every `EVERY_SECONDS` and at its end."""
        if step.task not in self._bars:
            self._bars[step.task] = Line(self._clock(), step.task, done=0.0)
            self._lines.append(self._bars[step.task])
        bar = self._bars[step.task]
        bar.done = min(step.done / max(step.total, 1e-9), 1.0)
        bar.detail = step.detail or bar.detail
        if bar.done >= 1 or time.monotonic() - self._shown >= EVERY_SECONDS:
            self._show()

    def note(self, text: str) -> None:
        """Add a line that the user should read."""
        self._add(Line(self._clock(), text))

    def _add(self, line: Line) -> None:
        self._lines.append(line)
        self._show()

    def _show(self) -> None:
        from IPython.display import HTML, display

        self._shown = time.monotonic()
        shown = HTML("".join(line.render() for line in self._lines))
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def _clock(self) -> str:
        return format_clock(time.monotonic() - self._started)
