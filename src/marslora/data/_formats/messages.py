"""``messages``: TRL, Hugging Face chat, OpenAI chat, ms-swift."""

from __future__ import annotations

from typing import Any

COLUMNS = ("messages",)


def turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages as they are."""
    return list(row["messages"])
