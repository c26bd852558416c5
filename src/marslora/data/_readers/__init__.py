"""Files and folders in, numbered rows out: one small module per kind of file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from marslora.core.errors import DataError
from marslora.data._readers import dataset, json_array, jsonl, parquet

Row = dict[str, Any] | str
"""A row, or the reason why it could not be read."""

MEMORY = "memory:"
_BY_SUFFIX = {
    ".jsonl": jsonl.rows,
    ".ndjson": jsonl.rows,
    ".json": json_array.rows,
    ".parquet": parquet.rows,
}
_held: dict[str, Iterable[Any]] = {}
_times_held: Counter[str] = Counter()


def hold(name: str, rows: Iterable[Any]) -> str:
    """Keep rows that are in memory; the returned ``memory:NAME`` names them in this process."""
    _held[name] = list(rows) if isinstance(rows, Iterator) else rows
    _times_held[name] += 1
    return MEMORY + name


def read(source: str, role: str) -> Iterator[tuple[int, Row]]:
    """(number, row) of a file, a folder or held rows. Numbers count lines (JSONL) or rows from 1.

    ``role`` (train, validation or test) picks the split of a folder that holds several.
    Raises `DataError` where nothing can be read at all.
    """
    if source.startswith(MEMORY):
        return dataset.in_memory(_held_rows(source), role)
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, role)
    if not path.is_file():
        raise DataError(f"Data file `{source}` does not exist. Name a .jsonl, .json or .parquet file or a folder.")
    if path.suffix not in _BY_SUFFIX:
        raise DataError(f"`{source}` has the ending `{path.suffix}`. It must be one of {sorted(_BY_SUFFIX)}.")
    return _BY_SUFFIX[path.suffix](path)


def stamp(source: str) -> object:
    """Changes when a source does: when its newest file was written, or which rows are held under its name."""
    if source.startswith(MEMORY):
        return _times_held[source.removeprefix(MEMORY)]
    path = Path(source).expanduser()
    return max(map(written, path.rglob("*")), default=0) if path.is_dir() else written(path)


def written(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 for one that is gone."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _held_rows(source: str) -> Iterable[Any]:
    name = source.removeprefix(MEMORY)
    if name not in _held:
        raise DataError(f"This process holds no rows called `{name}` (it holds {sorted(_held)}).")
    return _held[name]


def _read_folder(path: Path, role: str) -> Iterator[tuple[int, Row]]:
    if dataset.is_dataset(path):
        return dataset.rows(path, role)
    shards = sorted(path.glob("**/*.parquet"))
    named = [shard for shard in shards if role in shard.name]
    if not shards:
        raise DataError(f"Folder `{path}` holds neither a `datasets` folder (save_to_disk) nor .parquet files.")
    return parquet.shards(named or shards)
