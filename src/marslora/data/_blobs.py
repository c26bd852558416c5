"""Bytes that rows carry inside (pictures, sounds), kept out of memory until they are needed."""

from __future__ import annotations

import hashlib
import weakref
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile

_IN_MEMORY_BYTES = 32 << 20
"""The most bytes that a store keeps in memory before it moves to the disk, which small data sets never need."""
_EDGE_BYTES = 1 << 16
"""How many bytes at each end of a compressed file are hashed; metadata is mostly shorter than this."""
_CHUNK_BYTES = 1 << 20
"""Read at once while a file is hashed."""
_COMPRESSED = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"fLaC", b"OggS", b"ID3")
"""How compressed files begin: JPEG, PNG, GIF, FLAC, Ogg, MP3 with tags."""


class BlobStore:
    """A scratch file that disappears with the process; up to 32 MiB stay in memory."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES, dir=str(folder) if folder else None)  # noqa: SIM115
        weakref.finalize(self, self._file.close)  # rows hold the store for as long as anyone reads them
        self._end = 0

    def put(self, data: bytes) -> StoredBlob:
        """Store ``data`` and return where it lies."""
        stored = StoredBlob(self, self._end, len(data), compute_digest(data))
        self.append(data)
        return stored

    def append(self, data: bytes) -> int:
        """Store ``data`` and return where its end lies."""
        self._file.seek(self._end)
        self._file.write(data)
        self._end += len(data)
        return self._end

    def get(self, offset: int, num_bytes: int) -> bytes:
        """The bytes stored at ``offset``."""
        self._file.seek(offset)
        return self._file.read(num_bytes)


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """Where bytes lie in a `BlobStore`."""

    store: BlobStore
    offset: int
    num_bytes: int
    digest: str

    def read(self) -> bytes:
        """The bytes, read from the store."""
        return self.store.get(self.offset, self.num_bytes)


def compute_digest(data: bytes) -> str:
    """A digest of 32 hex digits; equal contents have equal digests.

    Of large compressed files only the size and both ends (64 KiB) are hashed: any difference in the middle changes what
    follows. What is not compressed (WAV, BMP) is hashed whole.
    """
    hashed = hashlib.sha256(str(len(data)).encode())
    if data.startswith(_COMPRESSED):
        hashed.update(data[:_EDGE_BYTES])
        hashed.update(data[max(_EDGE_BYTES, len(data) - _EDGE_BYTES) :])
    else:
        hashed.update(data)
    return str(hashed.hexdigest())[:32]


def compute_file_digest(path: Path) -> str:
    """`compute_digest` of a file's content, without reading more than needed."""
    num_bytes = path.stat().st_size
    hashed = hashlib.sha256(str(num_bytes).encode())
    with path.open("rb") as file:
        start = file.read(_EDGE_BYTES)
        hashed.update(start)
        if start.startswith(_COMPRESSED):
            file.seek(max(len(start), num_bytes - _EDGE_BYTES))
        while data := file.read(_CHUNK_BYTES):
            hashed.update(data)
    return str(hashed.hexdigest())[:32]
