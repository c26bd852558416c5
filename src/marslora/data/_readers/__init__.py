"""Names of sources in, files of numbered rows out: one small module per kind of file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from marslora.core.errors import DataError
from marslora.data._readers import _dataset, _llama_factory, _media_folder
from marslora.data._readers._base import AbstractFile, ConvertedFile
from marslora.data._readers.csv_file import CsvFile
from marslora.data._readers.json_file import JsonFile
from marslora.data._readers.jsonl_file import JsonlFile
from marslora.data._readers.parquet_file import ParquetFile

MEMORY = "memory:"
_BY_SUFFIX: dict[str, Callable[[Path], AbstractFile]] = {
    ".jsonl": JsonlFile,
    ".ndjson": JsonlFile,
    ".json": JsonFile,
    ".csv": CsvFile,
    ".parquet": ParquetFile,
}
_NAMED = re.compile(r"(.*dataset_info\.json):([^/\\]+)|(.*)#([^/\\#]+)")
_held: dict[str, Iterable[Any]] = {}
_times_held: Counter[str] = Counter()


def hold(name: str, rows: Iterable[Any]) -> str:
    """Keep rows that are in memory; the returned ``memory:NAME`` names them in this process."""
    _held[name] = list(rows) if isinstance(rows, Iterator) else rows
    _times_held[name] += 1
    return MEMORY + name


def files(source: str, role: str) -> list[AbstractFile]:
    """The files that ``source`` stands for: a file, a folder, ``FOLDER#NAME`` of a ``dataset_info.json``, held rows.

    ``role`` (train, validation or test) picks the split of a folder that holds several.
    Raises `DataError` where there is nothing to read.
    """
    if source.startswith(MEMORY):
        return [_dataset.DatasetRows(_held_rows(source), role, source, Path())]
    path, name = _parse_source(source)
    if path.name == _llama_factory.INFO or name is not None:
        return _registered(path, name, role)
    if path.is_dir():
        return _in_folder(path, role)
    if not path.is_file():
        raise DataError(
            f"Data file `{source}` does not exist. Name a .jsonl, .json, .csv or .parquet file or a folder."
        )
    if path.suffix not in _BY_SUFFIX:
        raise DataError(f"`{source}` has the ending `{path.suffix}`. It must be one of {sorted(_BY_SUFFIX)}.")
    return [_BY_SUFFIX[path.suffix](path)]


def stamp(source: str) -> object:
    """Changes when a source does: when its newest file was written, or which rows are held under its name."""
    if source.startswith(MEMORY):
        return _times_held[source.removeprefix(MEMORY)]
    path, _ = _parse_source(source)
    path = path.parent if path.name == _llama_factory.INFO else path
    return max(map(written, path.rglob("*")), default=0) if path.is_dir() else written(path)


def written(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 for one that is gone."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _parse_source(source: str) -> tuple[Path, str | None]:
    """The path that a source names, and the name of a data set in it."""
    path = Path(source).expanduser()
    if path.exists() or not (found := _NAMED.fullmatch(source)):
        return path, None
    return Path(found[1] or found[3]).expanduser(), found[2] or found[4]


def _held_rows(source: str) -> Iterable[Any]:
    name = source.removeprefix(MEMORY)
    if name not in _held:
        raise DataError(f"This process holds no rows called `{name}` (it holds {sorted(_held)}).")
    return _held[name]


def _registered(path: Path, name: str | None, role: str) -> list[AbstractFile]:
    info = path / _llama_factory.INFO if path.is_dir() else path
    name, entry = _llama_factory.find_entry(info, name)
    change = _llama_factory.make_converter(entry)
    found = files(str(info.parent / entry["file_name"]), role)
    changed = [ConvertedFile(file, info.parent, change) for file in found]
    for file in changed:
        file.registry = {name: entry}
    return list(changed)


def _in_folder(path: Path, role: str) -> list[AbstractFile]:
    if _dataset.is_dataset(path):
        return [_dataset.open_saved(path, role)]
    if (path / _llama_factory.INFO).is_file():
        return _registered(path, None, role)
    if listed := _of_role(_media_folder.find_metadata_files(path), path, role):
        return [_with_media(one) for one in listed]
    shards = sorted(path.rglob("*.parquet")) or sorted(one for one in path.iterdir() if one.suffix in _BY_SUFFIX)
    if not shards:
        raise DataError(
            f"Folder `{path}` holds neither a `datasets` folder (save_to_disk), nor a dataset_info.json, nor a "
            f"metadata file beside pictures, nor files that end in {sorted(_BY_SUFFIX)}."
        )
    return [_BY_SUFFIX[one.suffix](one) for one in _of_role(shards, path, role)]


def _with_media(path: Path) -> AbstractFile:
    changed = ConvertedFile(_BY_SUFFIX[path.suffix](path), path.parent, _media_folder.convert_row)
    changed.copy_name = _media_folder.NAMES[0]
    return changed


def _of_role(paths: list[Path], folder: Path, role: str) -> list[Path]:
    """Those whose path says that they are of ``role``; else those that speak of no role; else all."""

    def speaks_of(path: Path, roles: Iterable[str]) -> bool:
        words = re.split(r"[\W_]+", str(path.relative_to(folder)).lower())
        return any(name in words for one in roles for name in _dataset.ALIASES[one])

    own = [path for path in paths if speaks_of(path, [role])]
    return own or [path for path in paths if not speaks_of(path, _dataset.ALIASES)] or paths
