"""JSONL: one JSON object a line; empty lines are passed over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line number, object), or the reason why a line is none."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _parse(line)


def _parse(line: bytes) -> dict[str, Any] | str:
    try:
        value = json.loads(line)
    except ValueError as error:
        return f"the line is no JSON ({error})"
    return value if isinstance(value, dict) else f"the line must be a JSON object, found {type(value).__name__}"
