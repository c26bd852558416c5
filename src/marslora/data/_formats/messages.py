"""``messages``: TRL, Hugging Face chat, OpenAI chat, ms-swift."""

from __future__ import annotations

from typing import Any

from marslora.core.errors import DataError
from marslora.data._values import describe_value

COLUMNS = ("messages",)
PRECEDENCE = 10


def read_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages as they are; a ``system`` column comes first."""
    if not isinstance(row["messages"], list | tuple):
        raise DataError(f"`messages` must be a list of turns, found {describe_value(row['messages'])}")
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return [*system, *row["messages"]]
