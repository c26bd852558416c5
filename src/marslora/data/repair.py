"""Good rows into one file, bad ones with their reasons into another: every row into exactly one."""

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

from marslora.core.errors import ConfigError, DataError
from marslora.data._readers._base import AbstractFile
from marslora.data.splits import BadRow

BAD, GOOD_TABLE, BAD_TABLE, INFO = "bad.jsonl", "good.parquet", "bad.parquet", "dataset_info.json"
Reasons = Mapping[tuple[str, int], str]
"""(file, row) -> why it is bad."""


def check_can_repair(files: Sequence[AbstractFile], out: Path, image_folder: str | None) -> None:
    """`ConfigError` where good rows could not be written without loss: asked before anything is read."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"`--fix {out}` exists already. Name a folder that does not, nothing is overwritten.")
    if image_folder is None and len({file.folder for file in files}) > 1:
        raise ConfigError(
            "`--fix` writes one file, and the files named lie in different folders where their relative paths start. "
            "Check them one after the other, or name `--image-folder`."
        )
    if len({(file.copy_name, json.dumps(file.registry, sort_keys=True)) for file in files}) > 1:
        raise ConfigError("`--fix` writes one file, and the sources named have different layouts. Check them singly.")


def write(files: Sequence[AbstractFile], bad: Sequence[BadRow], out: Path) -> list[Path]:
    """Copy the rows of ``files`` into the folder ``out``, all or nothing; the files written.

    JSON rows keep their text (``good.jsonl``); rows of Parquet files and data sets keep their types (``good.parquet``).
    ``bad.jsonl`` names the file, row and reason of every bad row, with its text, or the row itself in ``bad.parquet``.
    """
    reasons = {(one.source, one.row): one.reason for one in bad}
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        with _RowCopier(temporary, reasons) as copy:
            for file in files:
                copy.take(file)
        if files and files[0].registry is not None:
            _register(files[0].registry, temporary)
        temporary.chmod(0o755)
        if out.exists():
            out.rmdir()
        os.rename(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(out.iterdir())


def _register(registry: Mapping[str, Any], folder: Path) -> None:
    name = next(found for found in (GOOD_TABLE, "good.jsonl") if (folder / found).exists())
    entries = {key: {**entry, "file_name": name} for key, entry in registry.items()}
    (folder / INFO).write_text(json.dumps(entries, indent=2, ensure_ascii=False), encoding="utf-8")


class _RowCopier:
    """Files that are opened when the first row for them comes."""

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

    def take(self, file: AbstractFile) -> None:
        """Copy every row of a file; where it cannot be read on, that is the reason under row 0."""
        tables = file.tables()
        try:
            if tables is None:
                self._take_texts(file)
            else:
                self._take_tables(file.place, tables)
        except DataError:
            if (file.place, 0) not in self._reasons:
                raise
        if (reason := self._reasons.get((file.place, 0))) is not None:
            self._note(file.place, 0, reason)

    def _take_texts(self, file: AbstractFile) -> None:
        self._open(file.copy_name)
        for number, text in file.texts():
            if (reason := self._reasons.get((file.place, number))) is None:
                self._texts[file.copy_name].write(text + b"\n")
            else:
                self._note(file.place, number, reason, text.decode(errors="surrogateescape"))

    def _take_tables(self, place: str, batches: Iterator[pa.RecordBatch]) -> None:
        number = 0
        for batch in batches:
            numbers = range(number + 1, number + 1 + len(batch))
            number += len(batch)
            good = [(place, one) not in self._reasons for one in numbers]
            self._add(GOOD_TABLE, batch.filter(pa.array(good)))
            if not all(good):
                self._add(BAD_TABLE, batch.filter(pa.array([not one for one in good])))
            for one in numbers:
                if (place, one) in self._reasons:
                    self._note(place, one, self._reasons[place, one])

    def _add(self, name: str, batch: pa.RecordBatch) -> None:
        if name not in self._tables:
            self._tables[name] = parquet.ParquetWriter(self._folder / name, batch.schema)
        try:
            self._tables[name].write_batch(batch)
        except (pa.ArrowInvalid, ValueError):
            raise DataError("the files have different columns: mend them one at a time with `--fix`.") from None

    def _note(self, place: str, number: int, reason: str, text: str | None = None) -> None:
        line = {"file": place, "row": number, "reason": reason, "text": text}
        self._open(BAD)
        self._texts[BAD].write(json.dumps(line).encode() + b"\n")

    def _open(self, name: str) -> None:
        if name not in self._texts:
            self._texts[name] = (self._folder / name).open("wb")
