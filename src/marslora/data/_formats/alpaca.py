"""``instruction``, ``input``, ``output``: Alpaca, with ``history`` as LLaMA-Factory has it."""

from __future__ import annotations

from typing import Any

from marslora.data._formats._shared import read_history, read_system, read_text

COLUMNS = ("instruction", "output")
PRECEDENCE = 40


def read_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The pairs of ``history``, then a question (instruction and input, each on a line of its own) and its answer."""
    asked = [read_text(row, column) for column in ("instruction", "input") if row.get(column) is not None]
    return [
        *read_system(row),
        *read_history(row),
        {"role": "user", "content": "\n".join(filter(None, asked))},
        {"role": "assistant", "content": read_text(row, "output")},
    ]
