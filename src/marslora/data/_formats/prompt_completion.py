"""``prompt`` + ``completion`` (TRL): text, or lists of messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marslora.core.errors import DataError
from marslora.data._formats._shared import read_system
from marslora.data._values import describe_value

COLUMNS = ("prompt", "completion")
PRECEDENCE = 20


def read_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The prompt's turns, whose answers are not learned, then the completion's."""
    prompt = [
        {**turn, "loss": False} if isinstance(turn, Mapping) and turn.get("role") == "assistant" else turn
        for turn in _read_column(row, "prompt", "user")
    ]
    return [*read_system(row), *prompt, *_read_column(row, "completion", "assistant")]


def _read_column(row: dict[str, Any], column: str, role: str) -> list[Any]:
    value = row[column]
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list | tuple):
        raise DataError(f"`{column}` must be text or a list of turns, found {describe_value(value)}")
    return list(value)
