"""Find rows that repeat earlier ones, in memory that does not grow with their number: their digests are on disk."""

from __future__ import annotations

import tempfile

import numpy as np
from numpy.typing import NDArray

_MOST_AT_ONCE = 1 << 16
"""Rows that are compared at once, about: they take a few MB."""
_WRITTEN_AT_ONCE = 4096
"""Rows that wait in memory to be written."""
_ROW = np.dtype([("digest", "V16"), ("file", "<u4"), ("row", "<u8")])


class RepeatFinder:
    """Finds rows of equal content among those that are added. Call `close` in the end."""

    def __init__(self, most_at_once: int = _MOST_AT_ONCE, written_at_once: int = _WRITTEN_AT_ONCE) -> None:
        self._most_at_once = most_at_once
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)
        self._waiting = np.empty(written_at_once, _ROW)
        self._num_waiting = 0
        self._num_rows = 0
        self._places: list[str] = []

    def add(self, digest: bytes, place: str, row: int) -> None:
        """Add a row of the file ``place``, whose content has a ``digest`` of 16 bytes."""
        if not self._places or self._places[-1] != place:
            self._places.append(place)
        self._waiting[self._num_waiting] = (digest, len(self._places) - 1, row)
        self._num_waiting += 1
        self._num_rows += 1
        if self._num_waiting == len(self._waiting):
            self._write()

    def find(self, num_named: int) -> tuple[int, tuple[str, ...]]:
        """(number of rows that repeat an earlier one, the first ``num_named`` of them in words)."""
        self._write()
        num_pieces = -(-self._num_rows // self._most_at_once)
        num_repeats, named = 0, []
        for piece in range(num_pieces):
            number_N, rows_N = self._read_piece(piece, num_pieces)
            _, first_U, unique_N = np.unique(rows_N["digest"].view("S16"), return_index=True, return_inverse=True)
            first_N = first_U[unique_N]
            repeats = np.flatnonzero(first_N != np.arange(len(rows_N)))
            num_repeats += len(repeats)
            for n in repeats[:num_named]:
                words = f"{self._name(rows_N[n])} repeats {self._name(rows_N[first_N[n]])}"
                named.append((int(number_N[n]), words))
        return num_repeats, tuple(words for _, words in sorted(named)[:num_named])

    def close(self) -> None:
        """Close the file and remove it."""
        self._file.close()

    def _write(self) -> None:
        self._file.write(self._waiting[: self._num_waiting].tobytes())
        self._num_waiting = 0

    def _read_piece(self, piece: int, num_pieces: int) -> tuple[NDArray[np.int64], NDArray[np.void]]:
        """(numbers, rows) of those whose digests fall into one of so many pieces, in their order."""
        self._file.seek(0)
        numbers, rows, num_read = [np.empty(0, np.int64)], [np.empty(0, _ROW)], 0
        while data := self._file.read(_WRITTEN_AT_ONCE * _ROW.itemsize):
            read = np.frombuffer(data, _ROW)
            key_N = read["digest"].copy().view("<u8").reshape(-1, 2)[:, 0]
            inside = np.flatnonzero(key_N % num_pieces == piece)
            numbers.append(num_read + inside)
            rows.append(read[inside])
            num_read += len(read)
        return np.concatenate(numbers), np.concatenate(rows)

    def _name(self, row: np.void) -> str:
        return f"{self._places[row['file']]} row {row['row']}"
