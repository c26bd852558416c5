"""Read the examples of a study: checked once, bad rows counted, a held-out split that shares no picture."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marslora.core.errors import DataError
from marslora.core.record import Record
from marslora.core.spec import DataSpec
from marslora.data import _readers
from marslora.data._blobs import BlobStore
from marslora.data._example import Example, to_example
from marslora.data._splitting import hold_out
from marslora.data.order import nested_order
from marslora.data.pictures import MediaCache

_NAMED_BAD_ROWS = 20


class BadRow(Record):
    """A row that cannot be used, and why. Rows count from 1; in JSONL they are lines. 0: all that is left of a file."""

    source: str
    row: int
    reason: str

    def __str__(self) -> str:
        return f"{self.source} row {self.row}: {self.reason}"


class DataReport(Record):
    """What was read."""

    num_train: int
    num_validation: int
    num_test: int
    num_bad: int = 0
    bad: tuple[BadRow, ...] = ()
    """The first bad rows, at most 20."""
    fingerprint: str = ""
    """Changes when any row, picture or split changes."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExampleSplits:
    """The examples of a study. Calibration trains on ``train`` and decides on ``validation``; ``test`` waits."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    report: DataReport


def register_rows(name: str, rows: Iterable[Any]) -> str:
    """Keep rows (dicts, or a `datasets.Dataset`) under ``name``; ``memory:NAME`` then names them in a `DataSpec`."""
    return _readers.hold(name, rows)


def load_splits(spec: DataSpec) -> ExampleSplits:
    """Every usable row of ``spec``, split.

    Where no validation files are named, rows are held out of the training rows by the content of their pictures, so
    that no picture stands on both sides where that is possible. At most ``max_validation`` rows validate, at most
    ``max_examples`` train; both are chosen by ``seed``. Test rows are all kept.
    The last result is kept: the same spec over files and pictures that have not changed is not read again.
    Raises `DataError` for a file that cannot be read, for more bad rows than ``max_bad_share``, for an empty split.
    """
    if (known := _last.get(spec)) is None or known.stamp != _stamp(spec, known.splits):
        splits = _load(spec)
        _last.clear()
        _last[spec] = known = _Read(splits, _stamp(spec, splits))
    return known.splits


@dataclass(frozen=True)
class _Read:
    splits: ExampleSplits
    stamp: tuple[object, ...]


_last: dict[DataSpec, _Read] = {}


def _stamp(spec: DataSpec, splits: ExampleSplits) -> tuple[object, ...]:
    """When every file behind ``splits`` was written last."""
    sources = (*spec.train, *spec.validation, *spec.test)
    examples = (*splits.train, *splits.validation, *splits.test)
    files = {one.source for row in examples for one in row.pictures_and_sounds if isinstance(one.source, Path)}
    return (*(_readers.stamp(source) for source in sources), *(_readers.written(file) for file in sorted(files)))


def _load(spec: DataSpec) -> ExampleSplits:
    bad: list[BadRow] = []
    caches = MediaCaches(spec.image_folder)
    train = _read(spec, "train", spec.train, bad, caches)
    validation = _read(spec, "validation", spec.validation, bad, caches)
    test = _read(spec, "test", spec.test, bad, caches)
    if not spec.validation:
        train, validation = hold_out(train, spec.validation_share, spec.max_validation, spec.seed)
    train = _limit_rows(train, spec.max_examples, spec.seed)
    validation = _limit_rows(validation, spec.max_validation, spec.seed)
    report = DataReport(
        num_train=len(train),
        num_validation=len(validation),
        num_test=len(test),
        num_bad=len(bad),
        bad=tuple(bad[:_NAMED_BAD_ROWS]),
        fingerprint=_fingerprint(train, validation, test),
        warnings=tuple(_find_leaks(train, validation=validation, test=test)),
    )
    return ExampleSplits(tuple(train), tuple(validation), tuple(test), report)


def _read(spec: DataSpec, role: str, sources: tuple[str, ...], bad: list[BadRow], caches: MediaCaches) -> list[Example]:
    good: list[Example] = []
    found_bad: list[BadRow] = []
    for source in sources:
        for file in _readers.files(source, role):
            cache = caches.get(file.folder)
            for number, row in file.rows():
                found = read_example(row, cache, file.place, number)
                (found_bad if isinstance(found, BadRow) else good).append(found)  # type: ignore[arg-type]
    if sources:
        check_bad_share(
            found_bad, len(good) + len(found_bad), spec.max_bad_share, f"{role} rows ({', '.join(sources)})"
        )
    bad.extend(found_bad)
    return good


class MediaCaches:
    """One album for every folder that relative paths start from; all share a shelf."""

    def __init__(self, image_folder: str | None) -> None:
        self._named = Path(image_folder).expanduser() if image_folder is not None else None
        self._blobs_store = BlobStore()
        self._by_folder: dict[Path, MediaCache] = {}

    def get(self, folder: Path) -> MediaCache:
        """The album for rows of a file whose relative paths start in ``folder``, if no image folder was named."""
        folder = self._named if self._named is not None else folder
        return self._by_folder.setdefault(folder, MediaCache(folder, self._blobs_store))


def read_example(row: dict[str, Any] | str, cache: MediaCache, place: str, number: int) -> Example | BadRow:
    """The row as an example, or why it is none."""
    if isinstance(row, str):
        return BadRow(source=place, row=number, reason=row)
    try:
        return to_example(row, cache, place, number)
    except DataError as error:
        return BadRow(source=place, row=number, reason=str(error))


def check_bad_share(bad: list[BadRow], num_rows: int, max_bad_share: float, what: str) -> None:
    """Raise `DataError` where too many of ``num_rows`` are bad, or none is left."""
    if num_rows == 0:
        raise DataError(f"There are no {what}. A file must hold at least one row.")
    if len(bad) <= max_bad_share * num_rows and len(bad) < num_rows:
        return
    first = "; ".join(str(row) for row in bad[:3])
    raise DataError(
        f"{len(bad)} of {num_rows} {what} cannot be used, more than the {max_bad_share:.1%} that are skipped: {first}"
        f"{'; ...' if len(bad) > 3 else ''}. Mend or remove them, or raise `max_bad_share`."
    )


def _limit_rows(examples: list[Example], limit: int | None, seed: int) -> list[Example]:
    """A seeded subset in the original order; a smaller limit gives a subset of a larger one's."""
    if limit is None or len(examples) <= limit:
        return examples
    return [examples[index] for index in sorted(nested_order(len(examples), seed)[:limit])]


def _fingerprint(*splits: list[Example]) -> str:
    hashed = hashlib.sha256()
    for split in splits:
        hashed.update(f"{len(split)}".encode())
        for example in split:
            hashed.update(example.digest.encode())
    return hashed.hexdigest()[:16]


def _find_leaks(train: list[Example], **others: list[Example]) -> Iterable[str]:
    rows = {example.digest for example in train}
    media = {digest for example in train for digest in example.media}
    for name, split in others.items():
        if same := sum(example.digest in rows for example in split):
            yield f"{same} of {len(split)} {name} rows are also training rows: they measure memory, not skill."
        elif shared := sum(any(digest in media for digest in example.media) for example in split):
            yield f"{shared} of {len(split)} {name} rows show a picture or sound that is also in training."
