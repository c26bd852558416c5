"""Write files and folders completely or not at all. Everything that a study must not lose is written by this module.

A file is written under a unique temporary name in the same folder, forced to the disk, and only then renamed to its
final name. A reader therefore finds the old file or the new one, even after a crash, and two processes that write
the same path never mix their data: the last rename wins. If something cannot be written, `WriteError` is raised.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from marslora.core.errors import WriteError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk and of an exceeded quota: space has to be freed."""
FULL_TEXTS = ("No space left on device", "PytorchStreamWriter failed writing")
"""How safetensors and torch, which write files themselves, report a full disk: not by an `OSError`."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")
"""The names that `temporary_path` gives."""


def write_text(path: Path, text: str) -> None:
    """Write a text file, encoded as UTF-8. Raises `WriteError`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file. Raises `WriteError`."""
    with open_atomically(path) as file:
        file.write(data)


@contextlib.contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces ``path`` at the end of the block, or is deleted if the block fails.

    Missing parent folders are made. Raises `WriteError`.
    """
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(path)
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def replace_folder(new: Path, path: Path) -> None:
    """Replace the folder ``path``, if it exists, by the finished folder ``new`` on the same disk.

    The old folder is renamed before it is deleted, so ``path`` is never incomplete; for an instant it is absent.
    If this raises `WriteError`, ``path`` is unchanged.
    """
    old = temporary_path(path)
    with explain_write_errors(path):
        sync_folder(new)
        had_old = path.is_dir()
        if had_old:
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            if had_old:
                old.rename(path)
            raise
        sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)


def publish_folder(new: Path, path: Path) -> None:
    """Rename the finished folder ``new`` to ``path``. If another process did so first, ``new`` is deleted instead.

    Raises `WriteError` if ``path`` does not exist afterwards.
    """
    with explain_write_errors(path):
        try:
            new.rename(path)
        except OSError:
            if not path.is_dir():
                raise
            shutil.rmtree(new)
        else:
            sync(path.parent)


def temporary_path(path: Path) -> Path:
    """A hidden path in the folder of ``path`` that no other call, in any process, returns."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in ``folder``; nobody may be writing there."""
    for path in folder.glob(".*.*"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Force a file's content, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Force the files of a folder, its subfolders and their lists of names to the disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


@contextlib.contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn an error in the block, which writes ``path``, into a `WriteError` that says how to fix it.

    This applies to any `OSError` and to the errors of safetensors and torch on a full disk. Others pass unchanged.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise write_error(path, error.strerror or str(error), full=error.errno in FULL) from error
    except Exception as error:
        if any(text in str(error) for text in FULL_TEXTS):
            raise write_error(path, FULL_TEXTS[0], full=True) from error
        raise


def write_error(path: Path, reason: str, *, full: bool) -> WriteError:
    """The error for a file or folder that cannot be written; ``full`` says whether the disk is full."""
    way_out = "Free some space" if full else "Make it writable or choose another folder"
    return WriteError(
        f"Cannot write {path}: {reason}. {way_out} and run the command again; nothing written before is lost."
    )
