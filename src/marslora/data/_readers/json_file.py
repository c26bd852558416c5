"""JSON: an array of objects, as LLaVA's data sets have it, read piece by piece."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from marslora.core.errors import DataError
from marslora.data._readers._base import AbstractFile, NumberedRows

_CHUNK_CHARACTERS = 1 << 20
_WHITE = re.compile(r"[ \t\n\r]*")


class JsonFile(AbstractFile):
    """A file with one JSON array. What breaks it off is an error of the file, not of a row."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), path.parent)
        self._path = path

    def rows(self) -> NumberedRows:
        """(number, object) of the array's entries."""
        for number, (_, value) in enumerate(self._entries(), start=1):
            yield number, value if isinstance(value, dict) else f"must be an object, found {type(value).__name__}"

    def num_rows(self) -> int:
        """Estimated from the entries in the first MiB."""
        with self._path.open("rb") as file:
            start = file.read(_CHUNK_CHARACTERS)
        depths = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", start)
        depth = count = 0
        for character in depths:
            depth += (character in b"{[") - (character in b"}]")
            count += character in b"}" and depth == 1
        return round(count * self._path.stat().st_size / max(1, len(start)))

    def texts(self) -> Iterator[tuple[int, bytes]]:
        """(number, entry on one line): line breaks between its parts are blanks."""
        for number, (text, _) in enumerate(self._entries(), start=1):
            yield number, text.replace("\r", " ").replace("\n", " ").encode(errors="surrogateescape")

    def _entries(self) -> Iterator[tuple[str, Any]]:
        with self._path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            yield from _Window(file, self.place).entries()


class _Window:
    """A piece of the text, moved forward as entries are taken from it."""

    def __init__(self, file: TextIO, place: str) -> None:
        self._file = file
        self._place = place
        self._text = ""
        self._at = 0
        self._num_rows = 0

    def entries(self) -> Iterator[tuple[str, Any]]:
        """(text, value) of every entry of the array."""
        if (found := self._next()) != "[":
            self._fail(f"must hold a JSON array of rows, it begins with `{found}`")
        self._at += 1
        if self._next() == "]":
            return
        while True:
            yield self._value()
            self._num_rows += 1
            mark = self._next()
            self._at += 1
            if mark == "]":
                return
            if mark != ",":
                self._fail(f"is no JSON: after row {self._num_rows} a comma or `]` is missing")

    def _next(self) -> str:
        """The next character that is not white, '' at the end."""
        while True:
            self._at = _WHITE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _value(self) -> tuple[str, Any]:
        self._next()
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if not self._more():
                    self._fail(f"is no JSON after row {self._num_rows}: {error}")
                continue
            if end < len(self._text) or not self._more():
                text = self._text[self._at : end]
                self._at = end
                return text, value

    def _more(self) -> bool:
        """Read on, twice as much each time the same entry asks; False at the end of the file."""
        self._text = self._text[self._at :]
        self._at = 0
        read = self._file.read(max(_CHUNK_CHARACTERS, len(self._text)))
        self._text += read
        return bool(read)

    def _fail(self, what: str) -> None:
        raise DataError(f"`{self._place}` {what}. A file of one object a line must end in .jsonl.")
