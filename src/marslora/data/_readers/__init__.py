"""Readers turn the sources that a `DataSpec` names into files of numbered rows. A file type is one file in this folder.

Such a file defines one class: an `AbstractFile` (see `_base`) with the endings that it reads as `suffixes`, and with
`rows` and `num_rows`. Its name has no leading underscore. Nothing else has to be edited: the folder is the registry.
Modules with a leading underscore read sources that have no ending: folders, registries, rows in memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from marslora.core.data_files import MEMORY, REGISTRY_FILE, is_inside, parse_hub_source, parse_source
from marslora.core.errors import DataError
from marslora.data._readers import _dataset, _hub_dataset, _llama_factory, _media_folder, _memory
from marslora.data._readers._base import AbstractFile, AbstractSource, ConvertedSource
from marslora.data._readers._base import read_rows as read_rows
from marslora.data._registry import import_modules


def list_file_types() -> Mapping[str, type[AbstractFile]]:
    """The class that reads files of each ending, e.g. ``{".csv": CsvFile, ...}``."""
    return _import_file_types(tuple(__path__))


def find_files(source: str, role: str, *, allow_outside: bool = False) -> list[AbstractSource]:
    """The files that ``source`` stands for: a file, a folder, an entry of a LLaMA-Factory registry, a data set
    on the hub, rows in memory.

    ``role`` (train, validation or test) picks the split of a folder that holds several. A registry may name files
    outside its folder only if ``allow_outside``.
    Raises `DataError` if there is nothing to read.
    """
    if source.startswith(MEMORY):
        return [_dataset.DatasetRows(_memory.get_rows(source), role, source, Path())]
    hub_source = parse_hub_source(source)
    if hub_source is not None and find_file_type(Path(hub_source.name)) is None:
        return [_hub_dataset.open_hub_dataset(hub_source, role, source)]
    path, entry = parse_source(source)
    if path.name == REGISTRY_FILE or entry is not None:
        return _find_in_registry(path, entry, role, allow_outside)
    if path.is_dir():
        return _find_in_folder(path, role, allow_outside)
    if not path.is_file():
        raise DataError(
            f"The data file `{source}` does not exist (looked for {path.absolute()}). Name an existing file that ends "
            f"in {', '.join(sorted(list_file_types()))}, a folder, or a data set on the hub (owner/name)."
        )
    if not path.is_file():
        raise DataError(f"`{source}` must be a file or a folder, and is neither. Name a file that can be read twice.")
    if find_file_type(path) is None:
        raise DataError(
            f"The ending of `{source}` must be one of {sorted(list_file_types())}, found `{path.suffix}`. Convert the "
            "file, or rename it if its content is of one of these types."
        )
    return [_open_file(path)]


@lru_cache(maxsize=8)
def _import_file_types(folders: tuple[str, ...]) -> Mapping[str, type[AbstractFile]]:
    types: dict[str, type[AbstractFile]] = {}
    for module in import_modules(__name__, folders):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, AbstractFile) and value.__module__ == module.__name__:
                for suffix in value.suffixes:
                    if types.setdefault(suffix, value) is not value:
                        raise TypeError(f"{types[suffix].__name__} and {value.__name__} both read `{suffix}` files.")
    return types


def find_file_type(path: Path) -> type[AbstractFile] | None:
    """The class that reads a file, by its ending in any case; ``.gz`` may follow it. None for another ending."""
    endings = [ending.lower() for ending in path.suffixes]
    if endings[-1:] == [".gz"]:
        return list_file_types().get(endings[-2]) if len(endings) > 1 and endings[-2] != ".parquet" else None
    return list_file_types().get(endings[-1]) if endings else None


def _open_file(path: Path) -> AbstractFile:
    file_type = find_file_type(path)
    assert file_type is not None
    return file_type(path)


def _find_in_registry(path: Path, entry_name: str | None, role: str, allow_outside: bool) -> list[AbstractSource]:
    info = path / REGISTRY_FILE if path.is_dir() else path
    entry_name, entry = _llama_factory.find_entry(info, entry_name)
    convert = _llama_factory.make_converter(entry, info)
    file_name = info.parent / entry["file_name"]
    if not (allow_outside or is_inside(file_name, os.path.realpath(info.parent))):
        raise DataError(
            f"`{info}`: the file of `{entry_name}`, `{entry['file_name']}`, is outside its folder. Move it there, name "
            "it yourself, or, if you trust the registry, allow it (--allow-outside)."
        )
    files = find_files(str(file_name), role, allow_outside=allow_outside)
    return [ConvertedSource(file, info.parent, convert, registry={entry_name: entry}) for file in files]


def _find_in_folder(path: Path, role: str, allow_outside: bool) -> list[AbstractSource]:
    if _dataset.is_dataset(path):
        return [_dataset.open_saved(path, role)]
    if (path / REGISTRY_FILE).is_file():
        return _find_in_registry(path, None, role, allow_outside)
    if metadata := _select_role(_media_folder.find_metadata_files(path), path, role):
        return [
            ConvertedSource(_open_file(file), file.parent, _media_folder.convert_row, copy_name=_media_folder.NAMES[0])
            for file in metadata
        ]
    suffixes = list_file_types()
    files = sorted(path.rglob("*.parquet")) or sorted(
        file for file in path.iterdir() if find_file_type(file) is not None
    )
    if not files:
        raise DataError(
            f"The folder `{path}` holds nothing that can be read: neither a data set saved by `save_to_disk`, nor a "
            f"{REGISTRY_FILE}, nor a metadata file beside pictures or sounds, nor files that end in "
            f"{sorted(suffixes)}. Name the folder that does; this one holds {_list_some(path)}."
        )
    return [_open_file(file) for file in _select_role(files, path, role)]


def _list_some(folder: Path) -> str:
    """The first few names in a folder, for messages."""
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "no file at all"


def _select_role(paths: list[Path], folder: Path, role: str) -> list[Path]:
    """The paths that name ``role``; if no path does, those that name no role; if every path does, all of them."""

    def names_any(path: Path, roles: Iterable[str]) -> bool:
        words = re.split(r"[\W_]+", str(path.relative_to(folder)).lower())
        return any(name in words for one in roles for name in _dataset.ALIASES[one])

    own = [path for path in paths if names_any(path, [role])]
    return own or [path for path in paths if not names_any(path, _dataset.ALIASES)] or paths
