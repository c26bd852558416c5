"""``conversations`` with ``from`` and ``value``: LLaVA JSON and ShareGPT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marslora.core.errors import DataError
from marslora.data._formats._shared import read_list, read_system
from marslora.data._values import describe_value

COLUMNS = ("conversations",)
PRECEDENCE = 30


def read_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The same turns under the names ``role`` and ``content``; a ``system`` column comes first."""
    turns = read_system(row)
    for turn in read_list(row, "conversations"):
        if not isinstance(turn, Mapping):
            raise DataError(f"a turn must be an object with `from` and `value`, found {describe_value(turn)}")
        rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
        named = {"role": turn.get("from", turn.get("role")), "content": turn.get("value", turn.get("content"))}
        turns.append({**rest, **named})
    return turns
