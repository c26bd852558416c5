"""Row layouts: each module turns one layout into plain turns ``{"role", "content"}``. The first that fits is used."""

from __future__ import annotations

from typing import Any

from marslora.core.errors import DataError
from marslora.data._formats import alpaca, conversations, described, messages, prompt_completion

Turn = dict[str, Any]

FORMATS = (messages, prompt_completion, conversations, alpaca, described)


def read_turns(row: dict[str, Any]) -> list[Turn]:
    """The turns of a row in any known layout; `DataError` with the row's columns where none fits."""
    for layout in FORMATS:
        if all(any(row.get(name) is not None for name in column.split("|")) for column in layout.COLUMNS):
            found: list[Turn] = layout.read_turns(row)
            return found
    wanted = " or ".join("+".join(layout.COLUMNS) for layout in FORMATS)
    raise DataError(f"the row must have the columns {wanted}, found {sorted(row)}")
