"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that a reader, also after a crash, finds the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(path)


def replace_folder(new: Path, path: Path) -> None:
    """Put the folder ``new`` where ``path`` is."""
    shutil.rmtree(path, ignore_errors=True)
    new.rename(path)
