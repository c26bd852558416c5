"""``instruction``, ``input``, ``output``: Alpaca."""

from __future__ import annotations

from typing import Any

COLUMNS = ("instruction", "output")


def turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """One question, instruction and input on lines of their own, and its answer."""
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    question = "\n".join(filter(None, (row["instruction"], row.get("input"))))
    return [*system, {"role": "user", "content": question}, {"role": "assistant", "content": row["output"]}]
