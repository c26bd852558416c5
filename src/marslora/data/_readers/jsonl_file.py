"""JSONL: one JSON object per line; empty lines are skipped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from marslora.data._readers._base import AbstractFile, NumberedRows, Row
from marslora.data._values import describe_value

_CHUNK_BYTES = 1 << 20
"""Read at once while lines are counted; any size from some KiB on is as fast."""


class JsonlFile(AbstractFile):
    """A file of JSON lines. Numbers are those that an editor shows."""

    suffixes = (".jsonl", ".ndjson")

    def rows(self) -> NumberedRows:
        """(line number, object), or the reason why a line holds no object."""
        for number, line in self.texts():
            yield number, _parse_line(line)

    def num_rows(self) -> int:
        """The number of line breaks; 0 (unknown) for a compressed file."""
        return 0 if self.is_compressed else count_line_breaks(self.path)

    def texts(self) -> Iterator[tuple[int, bytes]]:
        """(line number, line without its break)."""
        with self.open_bytes() as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip(b"\r\n")


def count_line_breaks(path: Path) -> int:
    """The number of line breaks in a file."""
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""))


def _parse_line(line: bytes) -> Row:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"the line is not valid JSON ({error}): every line must hold one complete JSON object"
    if isinstance(value, dict):
        return value
    return f'the line must be a JSON object such as {{"messages": [...]}}, found {describe_value(value)}'
