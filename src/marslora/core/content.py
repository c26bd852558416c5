"""What a folder of files holds, whatever it is called and wherever it is mounted: digests of content, not of names.

Large files are sampled, so that a model of any size takes a moment: their size, their beginning (where safetensors
lists names and shapes) and pieces at even distances count.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

from marslora.core.tensor_files import read_header

WHOLE_BYTES = 1 << 20
"""Files up to this size are read whole."""
SAMPLE_BYTES, SAMPLE_EVERY = 1 << 14, 1 << 23
"""Of a larger file pieces of the first size are read, one in each stretch of the second: a change of 8 MB is always
hit, and no model takes longer than a few seconds."""
LEAST_SAMPLES = 64
"""Pieces that are read of a larger file at least."""
MOST_FILES = 1000
"""In a folder with more files only names and sizes count: it holds pictures, which the rows' own digest covers."""
MODEL_SUFFIXES = frozenset({".json", ".safetensors", ".bin", ".pt", ".pth", ".model", ".txt", ".jinja", ".py"})
"""Files of a model folder that count: weights, configuration, tokenizer, code."""


def digest_model_folder(folder: Path) -> str:
    """16 hex digits that change with the weights, the configuration or the processor of a model; empty if it has none.

    The beginnings and ends of files, their sizes and samples in between are compared, not every byte.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in MODEL_SUFFIXES and path.is_file())
    return _digest_files(folder, files) if files else ""


def find_damage(folder: Path) -> str | None:
    """Which file of a folder with weights is not whole, and why; None if all are.

    Only what a moment can tell is looked at: safetensors have the size that they announce, JSON can be read, archives
    of torch have an end.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if not files:
        return f"{folder} is empty or gone"
    for path in files:
        if not _is_whole(path):
            return f"{path} is damaged ({path.stat().st_size} bytes)"
    return None


def _is_whole(path: Path) -> bool:
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            read_header(path)
        elif path.suffix in (".pt", ".pth"):
            return zipfile.is_zipfile(path)
    except ValueError:
        return False
    return True


def digest_paths(paths: Iterable[Path]) -> str:
    """16 hex digits that change with the content of files, and of all files of folders; names of files count only
    inside folders. A path that does not exist counts with its name."""
    digests = []
    for path in paths:
        if path.is_dir():
            digests.append(_digest_files(path, sorted(each for each in path.rglob("*") if each.is_file())))
        else:
            digests.append(_digest_file(path) if path.exists() else str(path))
    return hashlib.sha256("/".join(digests).encode()).hexdigest()[:16]


def _digest_files(folder: Path, files: list[Path]) -> str:
    hashed = hashlib.sha256()
    for path in files:
        content = f"{path.stat().st_size}" if len(files) > MOST_FILES else _digest_file(path)
        hashed.update(f"{path.relative_to(folder)} {content}\n".encode())
    return hashed.hexdigest()[:16]


def _digest_file(path: Path) -> str:
    size = path.stat().st_size
    hashed = hashlib.sha256(f"{size}".encode())
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            hashed.update(file.read())
        else:
            samples = max(LEAST_SAMPLES, -(-size // SAMPLE_EVERY))
            for number in range(samples + 1):
                file.seek((size - SAMPLE_BYTES) * number // samples)
                hashed.update(file.read(SAMPLE_BYTES))
    return hashed.hexdigest()[:16]
