"""``conversations`` with ``from`` and ``value``: LLaVA JSON and ShareGPT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marslora.core.errors import DataError
from marslora.data._values import describe_value

COLUMNS = ("conversations",)
PRECEDENCE = 30


def read_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The same turns under the names ``role`` and ``content``; a ``system`` column comes first."""
    turns = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    if not isinstance(row["conversations"], list | tuple):
        raise DataError(f"`conversations` must be a list of turns, found {describe_value(row['conversations'])}")
    for turn in row["conversations"]:
        if not isinstance(turn, Mapping):
            raise DataError(f"a turn must be an object with `from` and `value`, found {describe_value(turn)}")
        turns.append({"role": turn.get("from", turn.get("role")), "content": turn.get("value", turn.get("content"))})
    return turns
