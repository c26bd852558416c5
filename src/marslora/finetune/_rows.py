"""The encoded rows of a final run, and in which order it sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from marslora.core.spec import DataSpec, FinalSpec
from marslora.data import examples, order
from marslora.data._rows import Example
from marslora.data.encode import EncodedSet, encode
from marslora.models.loading import LoadedModel

Split = Literal["train", "validation", "test"]


class RowSet(Protocol):
    """Encoded rows, as a model takes them."""

    def __len__(self) -> int: ...

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row -> index of its example."""

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> dict[str, Any]:
        """The rows as keyword arguments of the model, on the CPU."""


@dataclass(frozen=True)
class Rows:
    """The three splits, ready for the model."""

    SPLITS: ClassVar[tuple[Split, ...]] = ("train", "validation", "test")
    train: RowSet
    validation: RowSet
    test: RowSet
    seed: int
    """Of the nested order: a calibration run on D rows had the first D of it."""
    tasks: tuple[str, ...] = ()
    """The names of the tasks that batches give places of."""

    def split(self, name: Split) -> RowSet:
        """One split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def steps(self, batch_size: int, order_seed: int, start: int, until: int) -> Iterator[list[int]]:
        """Training rows of every optimizer step from ``start`` to ``until`` examples."""
        nested = order.nested_order(len(self.train), self.seed)
        for positions in order.batches(len(self.train), batch_size, order_seed, start, until):
            yield nested[positions].tolist()

    def first_batches(self, count: int, size: int) -> list[dict[str, Any]]:
        """The first ``count`` batches of the nested order, or as many as there are."""
        nested = order.nested_order(len(self.train), self.seed)
        starts = range(0, min(count * size, len(self.train)), size)
        return [self.train.batch(nested[start : start + size]) for start in starts]


def load_rows(spec: FinalSpec, loaded: LoadedModel) -> Rows:
    """Read and encode every split of ``spec`` with the model's own processor; encoded rows are kept in its cache."""
    splits = examples.load(spec.data)

    def encoded(rows: Sequence[Example]) -> EncodedSet:
        return _encode(rows, loaded.processor, spec.data, spec.cache_folder)

    return Rows(encoded(splits.train), encoded(splits.validation), encoded(splits.test), spec.data.seed)


def _encode(rows: Sequence[Example], processor: Any, data: DataSpec, cache_folder: str) -> EncodedSet:
    return encode(
        rows, processor, cache_folder=cache_folder, max_length=data.max_length, max_bad_share=data.max_bad_share
    )
