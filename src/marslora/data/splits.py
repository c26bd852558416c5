"""Read the examples of a study and split them; bad rows are counted, and held-out rows share no picture with training.

The last result is kept in memory (`_cache`), since several stages of a study ask for the same rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from marslora.core.data_files import MEMORY, data_fingerprint, describe_files, list_sources
from marslora.core.errors import DataError
from marslora.core.record import Record
from marslora.core.spec import DataSpec
from marslora.data import _readers
from marslora.data._example import Example, to_example
from marslora.data._example_store import ExampleColumns, ExampleStore, StoredExamples
from marslora.data._media_cache import MediaCache, MediaCaches
from marslora.data._readers import _memory
from marslora.data._splitting import hold_out
from marslora.data.order import nested_order

_NAMED_BAD_ROWS = 20
"""Bad rows that a report names: enough to see a pattern, few enough to print."""
RowProgress = Callable[[int, int], None]
"""Called with (rows done, rows in all; the latter may be an estimate)."""


class BadRow(Record):
    """A row that cannot be used, and why. Rows count from 1; in JSONL they are lines. Row 0 is the rest of a file."""

    source: str
    row: int
    reason: str

    def __str__(self) -> str:
        return f"{self.source} row {self.row}: {self.reason}"


class DataReport(Record):
    """What was read: numbers of rows, the first bad ones, warnings."""

    num_train: int
    num_validation: int
    num_test: int
    num_bad: int = 0
    bad: tuple[BadRow, ...] = ()
    """The first bad rows, at most 20."""
    fingerprint: str = ""
    """Changes when the text of any row, a picture, a sound or the split changes."""
    notes: dict[str, int] = {}
    """What was not read or is changed -> the number of rows, bad ones excepted."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExampleSplits:
    """The examples of a study, each read from a scratch file when it is asked for. Calibration trains on ``train`` and
    measures on ``validation``; ``test`` is for the final report alone."""

    train: StoredExamples
    validation: StoredExamples
    test: StoredExamples
    report: DataReport


def register_rows(name: str, rows: Iterable[Any]) -> str:
    """Keep rows (dicts, or a `datasets.Dataset`) under ``name`` in this process.

    Returns ``memory:NAME``, which names them in a `DataSpec`. Rows registered before under the same name are replaced.
    """
    return _memory.register(name, rows)


def load_splits(spec: DataSpec) -> ExampleSplits:
    """Every usable row of ``spec``, split.

    If no validation files are named, rows are held out of the training rows by the content of their pictures, so that
    no picture is on both sides if that is possible. At most ``max_validation`` rows validate and at most
    ``max_examples`` train; both are chosen by ``seed``. All test rows are kept.
    The last result is cached: the same spec over unchanged files and pictures is not read again.
    Raises `DataError` for a file that cannot be read, for more bad rows than ``max_bad_share`` and for an empty split.
    """
    cached = _cache.get(spec)
    if cached is None or cached.fingerprint != _fingerprint_inputs(spec, cached.splits):
        splits = _read_splits(spec)
        _cache.clear()
        _cache[spec] = cached = _CachedSplits(splits, _fingerprint_inputs(spec, splits))
    return cached.splits


@dataclass(frozen=True)
class _CachedSplits:
    splits: ExampleSplits
    fingerprint: tuple[object, ...]
    """Of the files that they were read from."""


_cache: dict[DataSpec, _CachedSplits] = {}
"""The last splits that were read in this process, one entry at most: a second data set would double the memory."""


def _fingerprint_inputs(spec: DataSpec, splits: ExampleSplits) -> tuple[object, ...]:
    """Changes when a file behind ``splits`` does, or when other rows are registered under the same name."""
    versions = (_memory.get_version(source) for source in list_sources(spec) if source.startswith(MEMORY))
    return (data_fingerprint(spec), describe_files(list_media_files(splits)), *versions)


def list_media_files(splits: ExampleSplits) -> Iterator[Path]:
    """The files of all pictures, sounds and videos, as often as rows name them."""
    for examples in (splits.train, splits.validation, splits.test):
        yield from examples.iterate_files()


def _read_splits(spec: DataSpec) -> ExampleSplits:
    allowed = spec.allow_outside
    caches = MediaCaches(spec.image_folder, spec.max_pixels, spec.max_frames, allow_outside=allowed)
    roles = {role: _read_role(spec, role, getattr(spec, role), caches) for role in ("train", "validation", "test")}
    train, validation, test = (StoredExamples(role.good, np.arange(len(role.good))) for role in roles.values())
    if not spec.validation:
        is_held_out = hold_out(roles["train"].good.columns, spec.validation_share, spec.max_validation, spec.seed)
        train, validation = (
            StoredExamples(roles["train"].good, np.flatnonzero(chosen)) for chosen in (~is_held_out, is_held_out)
        )
    train = _limit_rows(train, spec.max_examples, spec.seed)
    validation = _limit_rows(validation, spec.max_validation, spec.seed)
    notes = _add_counts(split.columns.count_notes() for split in (train, validation, test))
    report = DataReport(
        num_train=len(train),
        num_validation=len(validation),
        num_test=len(test),
        num_bad=sum(role.num_bad for role in roles.values()),
        bad=tuple(row for role in roles.values() for row in role.bad)[:_NAMED_BAD_ROWS],
        fingerprint=_fingerprint_examples(train, validation, test),
        notes=notes,
        warnings=(
            *_find_leaks(train.columns, validation=validation.columns, test=test.columns),
            *write_notes(notes),
        ),
    )
    return ExampleSplits(train, validation, test, report)


def _add_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sums, the most frequent first."""
    total: dict[str, int] = {}
    for each in counts:
        for note, count in each.items():
            total[note] = total.get(note, 0) + count
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def write_notes(notes: Mapping[str, int]) -> list[str]:
    """A line for each note, as reports show them: "`tool_calls`: 312 rows, not read"."""
    sentences = []
    for note, count in notes.items():
        what, _, happens = note.rpartition(": ")
        sentences.append(f"{what}: {count:,} {'row' if count == 1 else 'rows'}, {happens}")
    return sentences


@dataclass
class _ReadRole:
    """The rows of one role: training, validation or test."""

    good: ExampleStore
    bad: list[BadRow]
    """The first bad rows, as many as reports name."""
    num_bad: int = 0


def _read_role(spec: DataSpec, role: str, sources: tuple[str, ...], caches: MediaCaches) -> _ReadRole:
    read = _ReadRole(ExampleStore(), [])
    for example in _read_examples(spec, role, caches):
        if not isinstance(example, BadRow):
            read.good.put(example)
            continue
        read.num_bad += 1
        if len(read.bad) < _NAMED_BAD_ROWS:
            read.bad.append(example)
    if sources:
        num_rows = len(read.good) + read.num_bad
        what = f"{role} rows ({', '.join(sources)})"
        check_bad_share(read.num_bad, read.bad, num_rows, spec.max_bad_share, what)
    return read


def _read_examples(spec: DataSpec, role: str, caches: MediaCaches) -> Iterator[Example | BadRow]:
    for source in getattr(spec, role):
        for file in _readers.find_files(source, role, allow_outside=spec.allow_outside):
            cache = caches.get(file.folder, file.place)
            for number, row in _readers.read_rows(file):
                yield read_example(row, cache, file.place, number)


def read_example(row: dict[str, Any] | str, cache: MediaCache, place: str, number: int) -> Example | BadRow:
    """The row as an `Example`, or as a `BadRow` with the reason why it cannot be used."""
    if isinstance(row, str):
        return BadRow(source=place, row=number, reason=row)
    try:
        return to_example(row, cache, place, number)
    except DataError as error:
        return BadRow(source=place, row=number, reason=str(error))
    except MemoryError:
        raise
    except Exception as error:  # formats may be anyone's, and rows hold anything: one row never ends a study
        return BadRow(source=place, row=number, reason=explain_exception(error))


def explain_exception(error: Exception) -> str:
    """The reason of a row that made foreign code raise anything but `DataError`."""
    return f"the row cannot be read ({type(error).__name__}: {str(error)[:200]}): correct it or remove it"


def check_bad_share(num_bad: int, bad: Sequence[BadRow], num_rows: int, max_bad_share: float, what: str) -> None:
    """Raise `DataError` if a larger share of ``num_rows`` than ``max_bad_share`` is bad, or if no good row is left.

    ``bad`` are the first bad rows, which the message names.
    """
    if num_rows == 0:
        raise DataError(f"There are no {what}: 0 rows were found. Name a file that holds at least one row.")
    if num_bad <= max_bad_share * num_rows and num_bad < num_rows:
        return
    first = "; ".join(str(row) for row in bad[:3])
    raise DataError(
        f"{num_bad} of {num_rows} {what} cannot be used, and `max_bad_share` allows {max_bad_share:.1%}: {first}"
        f"{'; ...' if num_bad > 3 else ''}. Repair or remove them (`marslora data check FILE --fix FOLDER` writes the "
        "good rows to a new file), or raise `max_bad_share`."
    )


def _limit_rows(examples: StoredExamples, limit: int | None, seed: int) -> StoredExamples:
    """A seeded subset in the original order; a smaller limit gives a subset of a larger one's."""
    if limit is None or len(examples) <= limit:
        return examples
    return examples.select(np.sort(nested_order(len(examples), seed)[:limit]))


def _fingerprint_examples(*splits: StoredExamples) -> str:
    hashed = hashlib.sha256()
    for split in splits:
        hashed.update(f"{len(split)}".encode())
        hashed.update(split.columns.digest_N.tobytes().hex().encode())
    return hashed.hexdigest()[:16]


def _find_leaks(train: ExampleColumns, **others: ExampleColumns) -> Iterable[str]:
    for name, split in others.items():
        num_rows = len(split.digest_N)
        is_known_N = np.isin(split.digest_N.view("S16"), train.digest_N.view("S16"))
        is_shown_M = np.isin(split.media_M.view("S16"), train.media_M.view("S16"))
        if same := int(is_known_N.sum()):
            yield (
                f"{same} of {num_rows} {name} rows are also training rows: they measure memorisation. Remove them "
                "from one of the two."
            )
        elif shared := len(np.unique(split.example_M[is_shown_M])):
            yield (
                f"{shared} of {num_rows} {name} rows show a picture, sound or video that training rows show too: their "
                "loss may be too low."
            )
