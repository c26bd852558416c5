"""Examples in a scratch file: memory holds where each lies and what it shows, so that millions of rows fit."""

from __future__ import annotations

import io
import pickle
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from marslora.data._blobs import BlobStore
from marslora.data._example import Example

_DIGEST_BYTES = 16
"""Bytes of the digest of a row or a medium."""


class ExampleStore:
    """Examples in the order in which they were put; ten numbers of each stay in memory."""

    def __init__(self) -> None:
        self._blobs = BlobStore()
        self._ends = array("Q", [0])
        self._digests = bytearray()
        self._media_digests = bytearray()
        self._num_media = array("q")
        self._held: list[Any] = []
        self._place_of: dict[int, int] = {}
        self._notes: dict[tuple[str, ...], int] = {}
        self._note_of = array("q")

    def __len__(self) -> int:
        return len(self._note_of)

    def put(self, example: Example) -> None:
        """Append an example, which then has the next place."""
        self._digests += bytes.fromhex(example.digest)
        self._media_digests += bytes.fromhex("".join(example.media_digests))
        self._num_media.append(len(example.media_digests))
        self._note_of.append(self._notes.setdefault(example.notes, len(self._notes)))
        file = io.BytesIO()
        pickler = _Pickler(file, pickle.HIGHEST_PROTOCOL)
        pickler.hold = self._hold
        pickler.dump(example)
        self._ends.append(self._blobs.append(file.getvalue()))

    def get(self, place: int) -> Example:
        """The example that was put after ``place`` others."""
        start, end = self._ends[place], self._ends[place + 1]
        unpickler = _Unpickler(io.BytesIO(self._blobs.get(start, end - start)))
        unpickler.held = self._held
        example: Example = unpickler.load()
        return example

    def _hold(self, value: Any) -> int:
        """The number of an object that stays in memory as it is."""
        if id(value) not in self._place_of:
            self._place_of[id(value)] = len(self._held)
            self._held.append(value)
        return self._place_of[id(value)]

    @cached_property
    def columns(self) -> ExampleColumns:
        """What is known of all examples; nothing may be put afterwards."""
        notes = list(self._notes)
        return ExampleColumns(
            digest_N=np.frombuffer(self._digests, f"V{_DIGEST_BYTES}"),
            media_M=np.frombuffer(self._media_digests, f"V{_DIGEST_BYTES}"),
            num_media_N=np.frombuffer(self._num_media, np.int64),
            notes=notes,
            note_N=np.frombuffer(self._note_of, np.int64),
        )


@dataclass(frozen=True)
class ExampleColumns:
    """What is known of N examples without reading them."""

    digest_N: NDArray[np.void]
    media_M: NDArray[np.void]
    """The digests of the pictures, sounds and videos of all examples, in their order."""
    num_media_N: NDArray[np.int64]
    notes: list[tuple[str, ...]]
    note_N: NDArray[np.int64]
    """Which of ``notes`` holds for the example."""

    @cached_property
    def example_M(self) -> NDArray[np.int64]:
        """The example of every picture and sound."""
        return np.repeat(np.arange(len(self.digest_N)), self.num_media_N)

    def select(self, places_N: NDArray[np.int64]) -> ExampleColumns:
        """Those of some examples, which must be in order."""
        is_chosen = np.zeros(len(self.digest_N), dtype=bool)
        is_chosen[places_N] = True
        return ExampleColumns(
            self.digest_N[places_N],
            self.media_M[is_chosen[self.example_M]],
            self.num_media_N[places_N],
            self.notes,
            self.note_N[places_N],
        )

    def count_notes(self) -> dict[str, int]:
        """Note -> the number of examples that have it."""
        counts: dict[str, int] = {}
        for place, count in enumerate(np.bincount(self.note_N, minlength=len(self.notes)).tolist()):
            for note in self.notes[place] if count else ():
                counts[note] = counts.get(note, 0) + count
        return counts


class StoredExamples(Sequence[Example]):
    """Some of the examples of a store, in its order; each is read when it is asked for."""

    def __init__(self, store: ExampleStore, places_N: NDArray[np.int64]) -> None:
        self._store = store
        self._places_N = places_N

    @cached_property
    def columns(self) -> ExampleColumns:
        """What is known of the examples without reading them."""
        return self._store.columns.select(self._places_N)

    def __len__(self) -> int:
        return len(self._places_N)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> StoredExamples: ...

    def __getitem__(self, index: int | slice) -> Example | StoredExamples:
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        return self._store.get(int(self._places_N[index]))

    def select(self, indices: NDArray[np.int64]) -> StoredExamples:
        """Some of the examples; their indices must be in order."""
        return StoredExamples(self._store, self._places_N[indices])

    def iterate_files(self) -> Iterator[Path]:
        """The files of the pictures, sounds and videos, as often as rows name them."""
        for index in np.flatnonzero(self.columns.num_media_N).tolist():
            for medium in self[index].media:
                if isinstance(medium.source, Path):
                    yield medium.source


class _Pickler(pickle.Pickler):
    """Leaves pictures that are objects in memory, and the files of bytes, where they are."""

    hold: Any

    def persistent_id(self, value: Any) -> int | None:
        """The number under which the object is held; None for one that is written."""
        return self.hold(value) if isinstance(value, Image.Image | BlobStore) else None


class _Unpickler(pickle.Unpickler):
    held: list[Any]

    def persistent_load(self, place: int) -> Any:
        """The object that was held under this number."""
        return self.held[place]
