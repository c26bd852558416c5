"""CSV and TSV with a header; empty cells are left out."""

from __future__ import annotations

import csv

from marslora.core.errors import DataError
from marslora.data._readers._base import AbstractFile, NumberedRows
from marslora.data._readers.jsonl_file import count_line_breaks

_MAX_CELL_CHARACTERS = 1 << 28
"""The `csv` module refuses cells above 128 KiB unless told otherwise; a picture as base64 text is larger."""


class CsvFile(AbstractFile):
    """A file of cells with commas between them, or tabs if its ending says so. Numbers count rows below the header."""

    suffixes = (".csv", ".tsv")

    def rows(self) -> NumberedRows:
        """(number, row) with every cell that is not empty, as text."""
        csv.field_size_limit(_MAX_CELL_CHARACTERS)
        delimiter = "\t" if ".tsv" in self.path.name.lower() else ","
        with self.open_text(newline="") as file:
            number = 0
            try:
                for number, row in enumerate(csv.DictReader(file, restkey="", delimiter=delimiter), start=1):
                    yield number, _explain_surplus(row) if "" in row else _drop_empty_cells(row)
            except (csv.Error, UnicodeDecodeError) as error:
                raise DataError(
                    f"`{self.place}` is not valid CSV after row {number} ({error}). Save it as CSV in UTF-8, "
                    "with quotes around cells that hold commas, tabs or line breaks."
                ) from None

    def num_rows(self) -> int:
        """Lines below the header; 0 (unknown) for a compressed file."""
        return 0 if self.is_compressed else max(0, count_line_breaks(self.path) - 1)


def _explain_surplus(row: dict[str, str | None]) -> str:
    surplus = len(row[""] or "")
    return f"the row has {surplus} more cells than the header: put quotes around cells that hold commas"


def _drop_empty_cells(row: dict[str, str | None]) -> dict[str, str]:
    return {name: cell for name, cell in row.items() if cell}
