"""What is known of splits that were read and encoded before, so that no worker of a study reads their rows again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from marslora.core.data_files import data_fingerprint, describe_files, has_rows_in_memory
from marslora.core.errors import ConfigError
from marslora.core.files import open_atomically, write_text
from marslora.core.record import Record, digest_texts
from marslora.core.spec import DataSpec
from marslora.data.splits import DataReport

_BETWEEN = b"\0"
"""Ends a path in the list of files; no path holds it."""


class KnownSplits(Record):
    """The names of encoded rows in the cache, and what was read to make them."""

    report: DataReport
    digests: dict[str, str]
    """Split -> the digest of its encoded rows."""
    media: str
    """Changes when a picture, sound or video is edited or removed."""


class KnownSplitsFile:
    """Where a `KnownSplits` of some data and a processor is kept. Rows in memory have none, since only reading them
    shows what they are."""

    def __init__(self, cache_folder: Path, data: DataSpec, processor_digest: str) -> None:
        key = digest_texts(data.digest(), data_fingerprint(data), processor_digest)
        self._path = cache_folder / f"splits-{key}.json"
        self._list = cache_folder / f"splits-{key}.files"
        self._can_keep = not has_rows_in_memory(data)

    def read(self) -> KnownSplits | None:
        """What is known; None if nothing is, or if a file that rows name has changed since."""
        with contextlib.suppress(OSError, ValueError, ConfigError):
            known = KnownSplits.load(self._path) if self._can_keep else None
            return known if known is not None and describe_files(self._read_files()) == known.media else None
        return None

    def write(self, report: DataReport, digests: dict[str, str], files: Iterable[Path]) -> None:
        """Keep what was read."""
        if not self._can_keep:
            return
        with open_atomically(self._list) as file:
            for path in files:
                file.write(os.fsencode(path) + _BETWEEN)
        media = describe_files(self._read_files())
        write_text(self._path, KnownSplits(report=report, digests=digests, media=media).to_json())

    def _read_files(self) -> Iterator[Path]:
        rest = b""
        with self._list.open("rb") as file:
            while chunk := file.read(1 << 20):
                *paths, rest = (rest + chunk).split(_BETWEEN)
                for path in paths:
                    yield Path(os.fsdecode(path))
