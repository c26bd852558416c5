"""``instruction``, ``input``, ``output``: Alpaca, with ``history`` as LLaMA-Factory has it."""

from __future__ import annotations

from typing import Any

from marslora.core.errors import DataError

COLUMNS = ("instruction", "output")


def read_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Earlier pairs, then the question, instruction and input on lines of their own, and its answer."""
    found = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    for pair in row.get("history") or ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise DataError("`history` must be pairs of a question and its answer")
        found += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    question = "\n".join(filter(None, (row["instruction"], row.get("input"))))
    return [*found, {"role": "user", "content": question}, {"role": "assistant", "content": row["output"]}]
