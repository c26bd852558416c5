"""JSON: an array of objects, as LLaVA's data sets have it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from marslora.core.errors import DataError


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(number, object) of the array's entries."""
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"`{path}` is no JSON: {error}. A file of one object a line must end in .jsonl.") from None
    if not isinstance(values, list):
        raise DataError(f"`{path}` must hold a JSON array of rows, found {type(values).__name__}.")
    for number, value in enumerate(values, start=1):
        yield number, value if isinstance(value, dict) else f"must be an object, found {type(value).__name__}"
