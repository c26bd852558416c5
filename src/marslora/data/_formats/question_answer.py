"""``query`` + ``response`` (ms-swift) and ``question`` + ``answer`` (visual question answering)."""

from __future__ import annotations

from typing import Any

from marslora.data._formats._shared import read_history, read_system, read_text

COLUMNS = ("query|question", "response|answer")
PRECEDENCE = 45


def read_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The pairs of ``history``, then the question and its answer."""
    question, answer = (
        next(name for name in column.split("|") if dict.get(row, name) is not None) for column in COLUMNS
    )
    return [
        *read_system(row),
        *read_history(row),
        {"role": "user", "content": read_text(row, question)},
        {"role": "assistant", "content": read_text(row, answer)},
    ]
