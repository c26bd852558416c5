"""``conversations`` with ``from`` and ``value``: LLaVA JSON and ShareGPT."""

from __future__ import annotations

from typing import Any

COLUMNS = ("conversations",)


def turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The same turns under the names ``role`` and ``content``; a ``system`` column comes first."""
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return system + [
        {"role": turn.get("from", turn.get("role")), "content": turn.get("value", turn.get("content"))}
        for turn in row["conversations"]
    ]
