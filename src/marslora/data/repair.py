"""Copy the good rows of files into one file and the bad ones, with their reasons, into another.

Every row ends in exactly one of the two, as it was written: JSON keeps its text, Arrow keeps its types.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from marslora.core.data_files import REGISTRY_FILE
from marslora.core.errors import ConfigError, DataError
from marslora.data._readers._base import AbstractSource
from marslora.data.splits import BadRow

BAD, GOOD, GOOD_TABLE, BAD_TABLE = "bad.jsonl", "good.jsonl", "good.parquet", "bad.parquet"
"""The files that are written: reasons with texts, good rows as JSON, good and bad rows with bytes inside."""
Reasons = Mapping[tuple[str, int], str]
"""(file, row) -> the reason why the row is bad."""


def check_can_repair(files: Sequence[AbstractSource], out: Path, image_folder: str | None) -> None:
    """Raise `ConfigError` if good rows could not be written without loss; called before anything is read."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"`--fix {out}` exists already and nothing is overwritten. Name a folder that does not exist."
        )
    folders = sorted({str(file.folder) for file in files})
    if image_folder is None and len(folders) > 1:
        raise ConfigError(
            "`--fix` writes one file, but relative paths start in a different folder for each of the files named: "
            f"{', '.join(folders)}. Check the files one after the other, or name `--image-folder`."
        )
    layouts = {(file.copy_name, json.dumps(file.registry, sort_keys=True)) for file in files}
    if len(layouts) > 1:
        places = ", ".join(file.place for file in files)
        raise ConfigError(
            f"`--fix` writes one file, but the sources named have {len(layouts)} different layouts: {places}. Check "
            "them one after the other."
        )


def write_repaired(files: Sequence[AbstractSource], bad: Sequence[BadRow], out: Path) -> list[Path]:
    """Copy the rows of ``files`` into the folder ``out``, all or nothing; returns the files written.

    JSON rows keep their text (``good.jsonl``); rows of Parquet files and data sets keep their types (``good.parquet``).
    ``bad.jsonl`` names the file, row and reason of every bad row, with its text, or the row itself in ``bad.parquet``.
    """
    reasons = {(row.source, row.row): row.reason for row in bad}
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        with _RowCopier(temporary, reasons) as copier:
            for file in files:
                copier.copy(file)
        if files and files[0].registry is not None:
            _write_registry(files[0].registry, temporary)
        temporary.chmod(0o755)
        if out.exists():
            out.rmdir()
        os.rename(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(out.iterdir())


def _write_registry(registry: Mapping[str, Any], folder: Path) -> None:
    name = next(name for name in (GOOD_TABLE, GOOD) if (folder / name).exists())
    entries = {key: {**entry, "file_name": name} for key, entry in registry.items()}
    (folder / REGISTRY_FILE).write_text(json.dumps(entries, indent=2, ensure_ascii=False), encoding="utf-8")


class _RowCopier:
    """Copies rows into the files of a folder, each opened when its first row arrives."""

    def __init__(self, folder: Path, reasons: Reasons) -> None:
        self._folder = folder
        self._reasons = reasons
        self._texts: dict[str, Any] = {}
        self._tables: dict[str, parquet.ParquetWriter] = {}

    def __enter__(self) -> _RowCopier:
        return self

    def __exit__(self, *error: object) -> None:
        for file in (*self._texts.values(), *self._tables.values()):
            file.close()

    def copy(self, file: AbstractSource) -> None:
        """Copy every row of a file. If it breaks off, the reason is noted under row 0."""
        tables = file.tables()
        try:
            if tables is None:
                self._copy_texts(file)
            else:
                self._copy_tables(file.place, tables)
        except Exception:  # whatever broke the file off while it was checked
            if (file.place, 0) not in self._reasons:
                raise
        if (reason := self._reasons.get((file.place, 0))) is not None:
            self._write_reason(file.place, 0, reason)

    def _copy_texts(self, file: AbstractSource) -> None:
        self._open(file.copy_name)
        for number, text in file.texts():
            if (reason := self._reasons.get((file.place, number))) is None:
                self._texts[file.copy_name].write(text + b"\n")
            else:
                self._write_reason(file.place, number, reason, text.decode(errors="surrogateescape"))

    def _copy_tables(self, place: str, batches: Iterator[pa.RecordBatch]) -> None:
        number = 0
        for batch in batches:
            numbers = range(number + 1, number + 1 + len(batch))
            number += len(batch)
            good = [(place, row) not in self._reasons for row in numbers]
            self._write_batch(GOOD_TABLE, batch.filter(pa.array(good)))
            if not all(good):
                self._write_batch(BAD_TABLE, batch.filter(pa.array([not is_good for is_good in good])))
            for row in numbers:
                if (place, row) in self._reasons:
                    self._write_reason(place, row, self._reasons[place, row])

    def _write_batch(self, name: str, batch: pa.RecordBatch) -> None:
        if name not in self._tables:
            self._tables[name] = parquet.ParquetWriter(self._folder / name, batch.schema)
        try:
            self._tables[name].write_batch(batch)
        except (pa.ArrowInvalid, ValueError):
            columns, expected = batch.schema.names, self._tables[name].schema.names
            raise DataError(
                f"The files have different columns, {columns} and {expected}, or types, so their rows do not fit into "
                f"one `{name}`. Repair them one at a time with `--fix`."
            ) from None

    def _write_reason(self, place: str, number: int, reason: str, text: str | None = None) -> None:
        line = {"file": place, "row": number, "reason": reason, "text": text}
        self._open(BAD)
        self._texts[BAD].write(json.dumps(line).encode() + b"\n")

    def _open(self, name: str) -> None:
        if name not in self._texts:
            self._texts[name] = (self._folder / name).open("wb")
