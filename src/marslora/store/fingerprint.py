"""Whether the rows of a study are still those that it began with, as far as their files tell."""

from __future__ import annotations

from pathlib import Path

from marslora.core.spec import DataSpec

IN_MEMORY = "memory:"
"""How a `DataSpec` names rows that this process holds."""


def stamps(data: DataSpec) -> list[str]:
    """Size and time of every data file there is, those in folders too: they change when somebody edits one."""
    named = [Path(name.partition("#")[0]).expanduser() for name in (*data.train, *data.validation, *data.test)]
    paths = [path for each in named for path in (sorted(each.rglob("*")) if each.is_dir() else [each])]
    return [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths if path.is_file()]


def is_held(data: DataSpec) -> bool:
    """Whether rows are in memory: only reading them tells whether they are those of the last time."""
    return any(name.startswith(IN_MEMORY) for name in (*data.train, *data.validation, *data.test))
