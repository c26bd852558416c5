"""Show the progress of a study on the console: stages, a bar with the remaining time, notes."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from marslora.core.plain_text import escape_controls
from marslora.core.runs import ProgressEvent

LINE_EVERY_SECONDS = 10.0
"""Seconds between lines of progress if there is no terminal: few enough to show activity, enough to keep logs short."""


class PlainConsole(Console):
    """A console on which texts are only texts: rows, paths and names may be a stranger's, so brackets are no markup and
    control characters are written out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text as it is shown, e.g. in the cell of a table."""
        return super().render_str(escape_controls(text), **options)


def print_line(console: Console, *pieces: str | tuple[str, str]) -> None:
    """Print pieces, each a text or (text, style), unchanged, so that a path or command can be copied.

    No line break is added, however narrow the console is, square brackets are not interpreted as markup, and control
    characters are written out.
    """
    shown = (escape_controls(each) if isinstance(each, str) else (escape_controls(each[0]), each[1]) for each in pieces)
    console.print(Text.assemble(*shown), highlight=False, soft_wrap=True)


class ConsoleListener:
    """A listener that draws bars on a terminal and prints plain lines elsewhere. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started = time.monotonic()
        self._last_line = self._started
        self._bars: dict[str, int] = {}
        self._progress = Progress(
            TextColumn("  {task.description:<24}", markup=False),
            BarColumn(bar_width=32),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> ConsoleListener:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, title: str) -> None:
        """Print a stage's title with the time since the start, and remove the bars of the last stage."""
        for bar in self._bars.values():
            self._progress.remove_task(bar)  # type: ignore[arg-type]
        self._bars.clear()
        self._last_line = time.monotonic()
        print_line(self.console, (f"{self._clock()} ", "dim"), (title, "bold"))

    def advance(self, step: ProgressEvent) -> None:
        """Update a bar; without a terminal, print a line every few seconds instead."""
        if step.task not in self._bars:
            self._bars[step.task] = self._progress.add_task(escape_controls(step.task), total=step.total, detail="")
        bar: Any = self._bars[step.task]
        if step.detail:
            self._progress.update(bar, detail=escape_controls(step.detail))
        self._progress.update(bar, completed=step.done, total=step.total)
        now = time.monotonic()
        if not self.console.is_terminal and now - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = now
            share = f"{step.done / max(step.total, 1e-9):.0%}"
            print_line(self.console, f"{self._clock()}   {step.task}: {share}{step.detail and f', {step.detail}'}")

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        print_line(self.console, (f"{self._clock()}   ", "dim"), text)

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60}:{seconds % 60:02d}"
