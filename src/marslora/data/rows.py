"""The encoded rows of a study by split: the rows of each step, and the fixed batches of validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from marslora.core.spec import DataSpec, TrainingSpec
from marslora.data import order
from marslora.data._known_splits import KnownSplits, KnownSplitsFile
from marslora.data.encode import EncodedRows, digest_processor, encode, open_encoded
from marslora.data.splits import BadRow, DataReport, list_media_files, load_splits, write_notes

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SplitProgress = Callable[[Split, int, int], None]
"""Called with (split, rows done, rows in all)."""


class BatchSource(Protocol):
    """What training needs of one split: `EncodedRows`, or a wrapper that adds to its batches."""

    def __len__(self) -> int: ...

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row -> index of its example."""

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        """The number of tokens of every row."""

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> dict[str, Any]:
        """The rows as keyword arguments of the model, on the CPU."""


SourceT_co = TypeVar("SourceT_co", bound=BatchSource, covariant=True)


@dataclass(frozen=True)
class EncodedSplits(Generic[SourceT_co]):
    """The three splits, encoded and ready for the model."""

    train: SourceT_co
    validation: SourceT_co
    test: SourceT_co
    report: DataReport
    """What was read."""
    seed: int
    """Of the nested order: a run on D rows sees its first D rows."""
    tasks: tuple[str, ...] = ()
    """The names of the tasks; batches hold indices into them. Empty unless a method asked for tasks."""

    def split(self, name: Split) -> SourceT_co:
        """The split called ``name``."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def steps(
        self, training: TrainingSpec, order_seed: int, start: int, until: int, data_examples: int | None = None
    ) -> Iterator[list[int]]:
        """The training rows of each optimizer step from ``start`` to ``until`` examples seen, taken from the first
        ``data_examples`` of the nested order (None: from all)."""
        num_rows = len(self.train)
        nested = order.nested_order(num_rows, self.seed)
        num_used = num_rows if data_examples is None else min(data_examples, num_rows)
        if training.group_by_length:
            lengths = self.train.num_tokens[nested[:num_used]]
            batches = order.iterate_batches_of_like_lengths(lengths, training.batch_size, order_seed, start, until)
        else:
            batches = order.iterate_batches(num_used, training.batch_size, order_seed, start, until)
        for positions in batches:
            yield nested[positions].tolist()

    def micro_batches(
        self, training: TrainingSpec, order_seed: int, start: int, until: int, data_examples: int | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """The micro-batches of each of the same steps; none of them is empty."""
        for rows in self.steps(training, order_seed, start, until, data_examples):
            yield [self.train.batch(piece) for piece in order.split_evenly(rows, training.accumulation) if piece]

    def first_batches(self, count: int, size: int) -> list[dict[str, Any]]:
        """The first ``count`` batches of the nested order, or as many as there are."""
        nested = order.nested_order(len(self.train), self.seed)
        starts = range(0, min(count * size, len(self.train)), size)
        return [self.train.batch(nested[start : start + size]) for start in starts]


def load_encoded_splits(
    data: DataSpec,
    processor: Any,
    cache_folder: str,
    *,
    splits: tuple[Split, ...] = SPLITS,
    progress: SplitProgress | None = None,
) -> EncodedSplits[EncodedRows]:
    """Read and encode ``splits`` with the model's own processor; the other splits stay empty.

    Encoded rows are cached in ``cache_folder``, with what was read to make them: later calls, also of other processes,
    read no rows as long as the files are unchanged. Raises what `load_splits` and `encode` raise.
    """
    known_file = KnownSplitsFile(Path(cache_folder), data, digest_processor(processor, data.max_length))
    known = known_file.read()
    opened = {} if known is None else _open_known(known, Path(cache_folder), processor, splits)
    if known is not None and len(opened) == len(SPLITS):
        return EncodedSplits(opened["train"], opened["validation"], opened["test"], known.report, data.seed)
    splits_read = load_splits(data)

    def encode_split(split: Split) -> EncodedRows:
        return encode(
            getattr(splits_read, split) if split in splits else (),
            processor,
            cache_folder=cache_folder,
            max_length=data.max_length,
            max_bad_share=data.max_bad_share,
            progress=(lambda done, total: progress(split, done, total)) if progress else None,
        )

    encoded = {split: encode_split(split) for split in SPLITS}
    digests = {} if known is None else known.digests
    digests = {**digests, **{split: encoded[split].digest for split in splits}}
    known_file.write(splits_read.report, digests, list_media_files(splits_read))
    return EncodedSplits(encoded["train"], encoded["validation"], encoded["test"], splits_read.report, data.seed)


def _open_known(
    known: KnownSplits, cache_folder: Path, processor: Any, splits: tuple[Split, ...]
) -> dict[Split, EncodedRows]:
    """The splits that the cache holds; those that are not wanted are empty."""
    opened: dict[Split, EncodedRows] = {}
    for split in SPLITS:
        if split not in splits:
            opened[split] = encode((), processor, cache_folder=cache_folder)
        elif split in known.digests:
            rows = open_encoded(cache_folder, known.digests[split], processor)
            opened |= {} if rows is None else {split: rows}
    return opened


def list_refused_rows(rows: EncodedSplits[EncodedRows]) -> list[BadRow]:
    """The rows that could be read but not encoded, of all splits."""
    return [bad for split in SPLITS for bad in rows.split(split).skipped]


def list_warnings(rows: EncodedSplits[EncodedRows]) -> list[str]:
    """What reading and encoding left out or changed, in words."""
    notes: Counter[str] = Counter()
    for name in SPLITS:
        notes.update(rows.split(name).notes)
    return [*rows.report.warnings, *write_notes(dict(notes.most_common()))]


def pick_heavy(rows: EncodedRows, count: int) -> list[int]:
    """The ``count`` rows with the most tokens, and as many that together have every kind of picture and sound."""
    longest = [int(row) for row in np.argsort(-rows.num_tokens, kind="stable")[:count]]
    return list(dict.fromkeys([*longest, *rows.pick_varied(count)]))


def iterate_batches_by_length(rows: EncodedRows, batch_size: int) -> Iterator[dict[str, Tensor]]:
    """All rows, similar lengths together (less padding), always in the same batches."""
    by_length = sorted(range(len(rows)), key=lambda row: (int(rows.num_tokens[row]), row))
    for start in range(0, len(by_length), batch_size):
        yield rows.batch(by_length[start : start + batch_size])
