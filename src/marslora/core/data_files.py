"""The files that the sources of a `DataSpec` name, and a fingerprint that changes when they do.

A source is a path, the name of a data set on the hub (``owner/name@revision:subset#split``), ``FOLDER#NAME`` or
``dataset_info.json:NAME`` (an entry of a LLaMA-Factory registry), or ``memory:NAME`` (rows held by this process). The
fingerprint is made of the size and the time of every file, so it is cheap and can be taken before anything is read. It
covers neither rows in memory (see `has_rows_in_memory`) nor the hub: a study keeps what it read there first.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from marslora.core.spec import DataSpec

MEMORY = "memory:"
"""The beginning of a source that names rows in memory."""
REGISTRY_FILE = "dataset_info.json"
"""LLaMA-Factory's name for the file that lists the data sets of a folder."""
_HUB_SOURCE = re.compile(
    r"(?P<scheme>hf://datasets/)?(?P<name>\w[\w.-]*(?:/[\w.-]+)?)"
    r"(?:@(?P<revision>[^:#]+))?(?::(?P<subset>[^:#]+))?(?:#(?P<split>[^#]+))?"
)
_ENTRY_OF_REGISTRY = re.compile(r"(.*dataset_info\.json):([^/\\]+)|(.*)#([^/\\#]+)")


@dataclass(frozen=True)
class HubSource:
    """A data set on the hub, as `datasets` names it."""

    name: str
    revision: str | None
    subset: str | None
    """What `datasets` calls its configuration."""
    split: str | None


def parse_hub_source(source: str) -> HubSource | None:
    """The data set on the hub that ``owner/name@revision:subset#split`` names; None for what is or may be a file here.

    All but the name may be left out. With ``hf://datasets/`` before it, nothing here is looked for.
    """
    match = _HUB_SOURCE.fullmatch(source)
    if match is None:
        return None
    path = Path(match["name"])
    may_be_here = Path(source).exists() or path.exists() or path.parent.is_dir() or path.name == REGISTRY_FILE
    if not match["scheme"] and ("/" not in match["name"] or may_be_here):
        return None
    return HubSource(match["name"], match["revision"], match["subset"], match["split"])


def parse_source(source: str) -> tuple[Path, str | None]:
    """(path, name of an entry or None) of a source. A path that exists is taken as it is, even if it holds a ``#``."""
    path = Path(source).expanduser()
    if path.exists() or parse_hub_source(source) or not (match := _ENTRY_OF_REGISTRY.fullmatch(source)):
        return path, None
    return Path(match[1] or match[3]).expanduser(), match[2] or match[4]


def is_inside(path: Path, root: str) -> bool:
    """Whether a path leads into ``root``, a real path, also through links."""
    real = os.path.realpath(path)
    return real == root or real.startswith(os.path.join(root, ""))


def list_sources(data: DataSpec) -> tuple[str, ...]:
    """Every source of a study: training, validation, test."""
    return (*data.train, *data.validation, *data.test)


def has_rows_in_memory(data: DataSpec) -> bool:
    """Whether any source names rows in memory, whose changes only reading them shows."""
    return any(source.startswith(MEMORY) for source in list_sources(data))


def data_fingerprint(data: DataSpec) -> str:
    """20 hex digits that change when a file of ``data`` is edited, added or removed.

    A folder counts with all its files; so does the folder of a LLaMA-Factory registry, which holds the data files.
    """
    hashed = hashlib.sha256()
    for source in list_sources(data):
        hashed.update(f"{source}\n".encode())
        if not source.startswith(MEMORY):
            hashed.update("".join(map(_describe_file, _list_files(source))).encode())
    return hashed.hexdigest()[:20]


def describe_files(files: Iterable[Path]) -> str:
    """20 hex digits that change when one of some files is edited or removed."""
    hashed = hashlib.sha256()
    for file in files:
        hashed.update(_describe_file(file).encode())
    return hashed.hexdigest()[:20]


def stamp_model(path: str) -> str:
    """Changes when a file of the model folder ``path`` is edited; empty if it is no folder."""
    folder = Path(path).expanduser()
    return "".join(map(_describe_file, sorted(folder.iterdir()))) if folder.is_dir() else ""


def _list_files(source: str) -> list[Path]:
    path, _ = parse_source(source)
    path = path.parent if path.name == REGISTRY_FILE else path
    return sorted(path.rglob("*")) if path.is_dir() else [path]


def _describe_file(path: Path) -> str:
    """A line for one file; a folder has none, and a missing file has one without size and time."""
    try:
        status = path.stat()
    except OSError:
        return f"{path}\n"
    return "" if path.is_dir() else f"{path} {status.st_size} {status.st_mtime_ns}\n"
