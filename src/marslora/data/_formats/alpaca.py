"""``instruction``, ``input``, ``output``: Alpaca, with ``history`` as LLaMA-Factory has it."""

from __future__ import annotations

from typing import Any

from marslora.core.errors import DataError
from marslora.data._values import describe_value

COLUMNS = ("instruction", "output")
PRECEDENCE = 40


def read_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The pairs of ``history``, then a question (instruction and input, each on a line of its own) and its answer."""
    turns = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    for pair in row.get("history") or ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise DataError(
                f"`history` must be a list of pairs of a question and its answer, found {describe_value(pair)} in it"
            )
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    question = "\n".join(filter(None, (row["instruction"], row.get("input"))))
    return [*turns, {"role": "user", "content": question}, {"role": "assistant", "content": row["output"]}]
