"""JSONL: one JSON object a line; empty lines are passed over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from marslora.data._readers._base import AbstractFile, NumberedRows, Row

_CHUNK_BYTES = 1 << 20


class JsonlFile(AbstractFile):
    """A file of JSON lines. Numbers are those that an editor shows."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), path.parent)
        self._path = path

    def rows(self) -> NumberedRows:
        """(line number, object), or the reason why a line is none."""
        for number, line in self.texts():
            yield number, _parse(line)

    def num_rows(self) -> int:
        """Line breaks, counted."""
        with self._path.open("rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""))

    def texts(self) -> Iterator[tuple[int, bytes]]:
        """(line number, line without its break)."""
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip(b"\r\n")


def _parse(line: bytes) -> Row:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"the line is no JSON ({error})"
    return value if isinstance(value, dict) else f"the line must be a JSON object, found {type(value).__name__}"
