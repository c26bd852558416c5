"""A picture, a sound or a video and the text that belongs to it, as image folders have them: captions and such."""

from __future__ import annotations

from typing import Any

from marslora.core.errors import DataError
from marslora.data._values import describe_value

COLUMNS = ("image|images|audio|audios|video|videos", "text|caption|transcription")
PRECEDENCE = 50


def read_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The question is the picture, sound or video alone, the answer its text."""
    text = next(row[name] for name in COLUMNS[1].split("|") if row.get(name) is not None)
    if not isinstance(text, str):
        raise DataError(
            f"the column {COLUMNS[1].replace('|', ', ')} of a picture, sound or video must be text, found "
            f"{describe_value(text)}: write it as text"
        )
    return [{"role": "user", "content": []}, {"role": "assistant", "content": text}]
