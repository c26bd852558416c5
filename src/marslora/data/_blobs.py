"""Bytes that rows carry inside (pictures, sounds), kept out of memory until they are needed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile

_IN_MEMORY_BYTES = 32 << 20
_EDGE_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20
_COMPRESSED = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"fLaC", b"OggS", b"ID3")


class BlobStore:
    """A scratch file that goes with the process; what fits into 32 MiB never reaches the disk."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES, dir=str(folder) if folder else None)  # noqa: SIM115
        self._end = 0

    def put(self, data: bytes) -> StoredBlob:
        """Keep ``data``."""
        self._file.seek(self._end)
        self._file.write(data)
        stored = StoredBlob(self, self._end, len(data), digest(data))
        self._end += len(data)
        return stored

    def get(self, offset: int, num_bytes: int) -> bytes:
        """What was kept there."""
        self._file.seek(offset)
        return self._file.read(num_bytes)


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """Where bytes lie on a shelf."""

    store: BlobStore
    offset: int
    num_bytes: int
    digest: str

    def read(self) -> bytes:
        """The bytes."""
        return self.store.get(self.offset, self.num_bytes)


def digest(data: bytes) -> str:
    """Equal contents have equal digests. Of large compressed files only the size and both ends (64 KiB) are read:
    there any difference moves what follows. What is not compressed (WAV, BMP) is read whole."""
    hashed = hashlib.sha256(str(len(data)).encode())
    if data.startswith(_COMPRESSED):
        hashed.update(data[:_EDGE_BYTES])
        hashed.update(data[max(_EDGE_BYTES, len(data) - _EDGE_BYTES) :])
    else:
        hashed.update(data)
    return str(hashed.hexdigest())[:32]


def file_digest(path: Path) -> str:
    """`digest` of a file's content."""
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
