"""Events as lines of JSON in a file: how a process that no pipe reaches, e.g. on another machine, reports them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from marslora.core.errors import MarsloraError, rebuild_error
from marslora.core.runs import Event

KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}
ERROR, END = "error", "end"
"""The names of lines that hold no event: an error that was raised, and the end of the work."""

Report = Event | MarsloraError | None
"""What is reported of a spec: events, perhaps an error, and None when its work has ended."""


class EventFile:
    """The reports of one spec in the file ``path``, which one process writes and another reads at the same time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def write(self, report: Report) -> None:
        """Append a report; it can be read when this returns."""
        with self.path.open("ab") as file:
            # a line that a killed process began is ended first
            file.write(b"\n" * (file.tell() > 0) + _to_line(report).encode() + b"\n")

    def read(self) -> Iterator[Report]:
        """The reports that were added since they were last read. A line that was not finished is left out."""
        try:  # opened each time: only then a network file system looks for what is new
            with self.path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return
        whole, _, _ = text.rpartition(b"\n")
        self._offset += len(whole)
        for line in whole.splitlines():
            if line:
                yield from _from_line(line)


def _to_line(report: Report) -> str:
    if report is None:
        return json.dumps([END, None])
    if isinstance(report, MarsloraError):
        return json.dumps([ERROR, [type(report).__name__, str(report)]])
    return f'["{type(report).__name__}", {report.model_dump_json()}]'


def _from_line(line: bytes) -> Iterator[Report]:
    try:
        name, value = json.loads(line)
    except ValueError:  # the process was killed within the line; it reports the same again when it goes on
        return
    if name == END:
        yield None
    else:
        yield rebuild_error(*value) if name == ERROR else KINDS[name].parse(value, name)
