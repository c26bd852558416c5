"""Files and folders that are there whole or not at all. Everything a study must not lose is written through here.

A file is written under a temporary name of its own in the same folder, forced to the disk, and only then renamed to its
final name. A reader therefore finds the old file or the new one, also after a crash, and two processes that write
the same path never touch each other's data: the last rename wins. What cannot be written raises `WriteError`.
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
"""How safetensors and torch, which write files themselves, report a full disk; their errors are not `OSError`."""

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
    """A file to write to that takes the place of ``path`` when the block ends, and vanishes if the block fails.

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
    """Put the finished folder ``new`` where ``path`` is, which may exist and must be on the same disk.

    The old folder is renamed before it is deleted, so ``path`` is never half of a folder; for an instant it is absent.
    Raises `WriteError`, and then ``path`` is what it was.
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
    """Rename the finished folder ``new`` to ``path``. If another process was first, its folder stays, ``new`` goes.

    Raises `WriteError` if ``path`` is not there afterwards.
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
    """A hidden path beside ``path`` that nobody else uses, in this process or another."""
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
    """Turn an error of the block, which writes ``path``, into a `WriteError` that says what to do.

    That is any `OSError`, and what safetensors and torch raise when the disk is full. Other errors pass.
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
    """The error for a file or folder that cannot be written; ``full`` says whether space is what is missing."""
    way_out = "Free some space" if full else "Make it writable or choose another folder"
    return WriteError(
        f"Cannot write {path}: {reason}. {way_out} and run the command again; nothing written before is lost."
    )
