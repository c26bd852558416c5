"""JSON: an array of objects, as LLaVA's data sets have it, read piece by piece."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from marslora.core.errors import DataError
from marslora.data._readers._base import AbstractFile, NumberedRows
from marslora.data._values import describe_value

_CHUNK_CHARACTERS = 1 << 20
"""Read at once: an entry (a row with its conversation) is far smaller, and memory stays flat."""
_WHITE = re.compile(r"[ \t\n\r]*")


class JsonFile(AbstractFile):
    """A file with one JSON array. Broken syntax is an error of the file, not of a row: nothing after it can be read."""

    suffixes = (".json",)

    def rows(self) -> NumberedRows:
        """(number from 1 on, object) of every entry of the array."""
        for number, (_, value) in enumerate(self._entries(), start=1):
            if isinstance(value, dict):
                yield number, value
            else:
                yield number, f"an entry of the array must be an object of columns, found {describe_value(value)}"

    def num_rows(self) -> int:
        """Estimated from the number of entries in the first MiB; 0 (unknown) for a compressed file."""
        if self.is_compressed:
            return 0
        with self.path.open("rb") as file:
            start = file.read(_CHUNK_CHARACTERS)
        depths = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", start)
        depth = count = 0
        for character in depths:
            depth += (character in b"{[") - (character in b"}]")
            count += character in b"}" and depth == 1
        return round(count * self.path.stat().st_size / max(1, len(start)))

    def texts(self) -> Iterator[tuple[int, bytes]]:
        """(number, entry on one line): line breaks between its parts become spaces."""
        for number, (text, _) in enumerate(self._entries(), start=1):
            yield number, text.replace("\r", " ").replace("\n", " ").encode(errors="surrogateescape")

    def _entries(self) -> Iterator[tuple[str, Any]]:
        with self.open_text(errors="surrogateescape") as file:
            yield from _Window(file, self.place).entries()


class _Window:
    """The piece of the text that is in memory; it moves forward as entries are taken from it."""

    def __init__(self, file: TextIO, place: str) -> None:
        self._file = file
        self._place = place
        self._text = ""
        self._at = 0
        self._num_rows = 0

    def entries(self) -> Iterator[tuple[str, Any]]:
        """(text, value) of every entry of the array."""
        if (first := self._peek()) != "[":
            begins = f"begins with `{first}`" if first else "is empty"
            self._fail(f"must hold a JSON array of rows, `[{{...}}, ...]`, but {begins}")
        self._at += 1
        if self._peek() == "]":
            return
        while True:
            yield self._read_entry()
            self._num_rows += 1
            mark = self._peek()
            self._at += 1
            if mark == "]":
                return
            if mark != ",":
                self._fail(f"is not valid JSON: after row {self._num_rows} a comma or `]` is missing, found `{mark}`")

    def _peek(self) -> str:
        """The next character that is not white space, '' at the end of the file."""
        while True:
            self._at = _WHITE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _read_entry(self) -> tuple[str, Any]:
        """The next entry; more of the file is read until it is complete."""
        self._peek()
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if not self._more():
                    self._fail(f"is not valid JSON after row {self._num_rows}: {error}")
                continue
            if end < len(self._text) or not self._more():
                text = self._text[self._at : end]
                self._at = end
                return text, value

    def _more(self) -> bool:
        """Read more, twice as much each time for the same entry; False at the end of the file."""
        self._text = self._text[self._at :]
        self._at = 0
        read = self._file.read(max(_CHUNK_CHARACTERS, len(self._text)))
        self._text += read
        return bool(read)

    def _fail(self, what: str) -> None:
        raise DataError(f"`{self._place}` {what}. Correct the file; if it holds one object per line, call it .jsonl.")
