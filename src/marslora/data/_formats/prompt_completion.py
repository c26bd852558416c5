"""``prompt`` + ``completion`` (TRL): text, or lists of messages."""

from __future__ import annotations

from typing import Any

COLUMNS = ("prompt", "completion")


def turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The prompt's turns, then the completion's."""
    return _as_turns(row["prompt"], "user") + _as_turns(row["completion"], "assistant")


def _as_turns(value: Any, role: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": value}] if isinstance(value, str) else list(value)
