"""``messages``: TRL, Hugging Face chat, OpenAI chat, ms-swift."""

from __future__ import annotations

from typing import Any

from marslora.data._formats._shared import read_list, read_system

COLUMNS = ("messages",)
PRECEDENCE = 10


def read_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages as they are; a ``system`` column comes first."""
    return [*read_system(row), *read_list(row, "messages")]
