"""CSV with a header; empty cells are left out."""

from __future__ import annotations

import csv
from pathlib import Path

from marslora.core.errors import DataError
from marslora.data._readers._base import AbstractFile, NumberedRows
from marslora.data._readers.jsonl_file import JsonlFile

_LONGEST_CELL = 1 << 28


class CsvFile(AbstractFile):
    """A CSV file. Numbers count rows below the header."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), path.parent)
        self._path = path

    def rows(self) -> NumberedRows:
        """(number, row)."""
        csv.field_size_limit(_LONGEST_CELL)
        with self._path.open(encoding="utf-8-sig", newline="") as file:
            number = 0
            try:
                for number, row in enumerate(csv.DictReader(file, restkey=""), start=1):
                    has_more = "" in row
                    yield number, "more cells than the header has" if has_more else _filled(row)
            except (csv.Error, UnicodeDecodeError) as error:
                raise DataError(f"`{self.place}` is no CSV after row {number}: {error}.") from None

    def num_rows(self) -> int:
        """Lines below the header."""
        return max(0, JsonlFile(self._path).num_rows() - 1)


def _filled(row: dict[str, str | None]) -> dict[str, str]:
    return {name: cell for name, cell in row.items() if cell}
