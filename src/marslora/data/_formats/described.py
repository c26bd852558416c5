"""A picture or a sound and the text that belongs to it: captions and transcriptions, as image folders have them."""

from __future__ import annotations

from typing import Any

from marslora.core.errors import DataError
from marslora.data._values import describe_value

COLUMNS = ("image|images|audio|audios", "text|caption|transcription")
PRECEDENCE = 50


def read_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The question is the picture or sound alone, the answer its text."""
    text = next(row[name] for name in COLUMNS[1].split("|") if row.get(name) is not None)
    if not isinstance(text, str):
        raise DataError(
            f"the column {COLUMNS[1].replace('|', ', ')} of a picture or sound must be text, found "
            f"{describe_value(text)}: write it as text"
        )
    return [{"role": "user", "content": []}, {"role": "assistant", "content": text}]
