"""Lists of arrays of different shapes ("ragged") in flat files, which are read through memory maps."""

from __future__ import annotations

import json
import re
import zlib
from array import array
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from marslora.core.files import explain_write_errors

_INDEX = "index.json"
"""The file with the types, sizes and checksums of all lists, and the writer's metadata."""
_CHUNK_BYTES = 1 << 24
"""Read at once while checksums are compared."""


class Ragged:
    """A list of arrays of one dtype. An entry that was never written is None."""

    def __init__(self, flat: NDArray[Any], shapes: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        self._flat = flat
        self._shapes = shapes
        self._offsets = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))])
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> NDArray[Any] | None:
        place = self._places[index]
        if place < 0:
            return None
        values = self._flat[self._offsets[place] : self._offsets[place + 1]]
        return values.reshape(self._shapes[place])

    def distinct(self) -> NDArray[Any]:
        """The different numbers of all entries, in increasing order. Reads a piece at a time."""
        size = _CHUNK_BYTES // self._flat.itemsize
        pieces = [np.unique(self._flat[start : start + size]) for start in range(0, len(self._flat), size)]
        return np.unique(np.concatenate(pieces)) if pieces else np.array([], dtype=self._flat.dtype)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The first axis of every entry, 0 for one that was never written."""
        return np.where(self._places < 0, 0, self._shapes[self._places, 0])


class RaggedWriter:
    """Appends arrays to one file per name in ``folder``, entries in any order. A name has the form ``group.name``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        self._shapes: dict[str, array[int]] = {}
        self._ranks: dict[str, int] = {}
        self._entries: dict[str, array[int]] = {}
        self._dtypes: dict[str, str] = {}
        self._sums: dict[str, int] = {}

    def add(self, name: str, index: int, values: NDArray[Any]) -> None:
        """Make ``values`` the entry ``index`` of the list ``name``."""
        with explain_write_errors(self._folder):
            self._add(name, index, values)

    def _add(self, name: str, index: int, values: NDArray[Any]) -> None:
        if name not in self._files:
            self._files[name] = (self._folder / make_file_name(name)).open("wb")
            self._shapes[name], self._entries[name], self._sums[name] = array("q"), array("q"), 0
            self._ranks[name] = values.ndim
            self._dtypes[name] = values.dtype.str
        data = np.ascontiguousarray(values, dtype=self._dtypes[name]).tobytes()
        self._files[name].write(data)
        self._sums[name] = zlib.crc32(data, self._sums[name])
        self._shapes[name].extend(values.shape)
        self._entries[name].append(index)

    def renumber(self, group: str, kept_N: NDArray[np.int64]) -> None:
        """Number the entries of a group's lists by their places in ``kept_N``, the increasing numbers that are kept."""
        for name, entries in self._entries.items():
            if name.partition(".")[0] == group:
                self._entries[name] = array("q", np.searchsorted(kept_N, entries).tobytes())

    def close(self, sizes: dict[str, int], meta: dict[str, Any]) -> None:
        """Finish the files: ``sizes`` says how long the lists of a group are; ``meta`` is kept beside them."""
        with explain_write_errors(self._folder):
            self._close(sizes, meta)

    def _close(self, sizes: dict[str, int], meta: dict[str, Any]) -> None:
        arrays = {}
        for name, file in self._files.items():
            file.close()
            np.save(self._folder / f"{make_file_name(name)}.shapes.npy", self._read_shapes(name))
            np.save(self._folder / f"{make_file_name(name)}.entries.npy", np.array(self._entries[name], dtype=np.int64))
            size = sizes[name.partition(".")[0]]
            arrays[name] = {"dtype": self._dtypes[name], "crc": self._sums[name], "size": size}
        (self._folder / _INDEX).write_text(json.dumps({"arrays": arrays, "meta": meta}))

    def _read_shapes(self, name: str) -> NDArray[np.int64]:
        """The shape of every entry, (entries, axes)."""
        return np.array(self._shapes[name], dtype=np.int64).reshape(len(self._entries[name]), self._ranks[name])


def read_ragged(folder: Path) -> tuple[dict[str, Ragged], dict[str, Any]]:
    """The lists and the meta data in ``folder``.

    Raises `OSError`, `EOFError`, `ValueError` or `KeyError` for a damaged folder: every checksum is compared.
    """
    index = json.loads((folder / _INDEX).read_text())
    lists = {}
    for name, about in index["arrays"].items():
        path = folder / make_file_name(name)
        flat = _open_memory_map(path, about["dtype"])
        if _compute_checksum(path) != about["crc"]:
            raise ValueError(f"{path} is damaged: its checksum must be {about['crc']}. Remove the folder")
        shapes = np.load(folder / f"{path.name}.shapes.npy")
        entries = np.load(folder / f"{path.name}.entries.npy")
        places = np.full(about["size"], -1, dtype=np.int64)
        places[entries] = np.arange(len(entries))
        lists[name] = Ragged(flat, shapes, places)
    return lists, index["meta"]


def make_file_name(name: str) -> str:
    """A safe file name for the list ``name``."""
    return re.sub(r"[^\w.]", "_", name) + ".bin"


def _open_memory_map(path: Path, dtype: str) -> NDArray[Any]:
    if path.stat().st_size == 0:
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def _compute_checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while data := file.read(_CHUNK_BYTES):
            crc = zlib.crc32(data, crc)
    return crc
