"""The encoded rows of a final run, and in which order it sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from marslora.core.spec import DataSpec, FinalSpec
from marslora.data import examples, order
from marslora.data._rows import Example
from marslora.data.encode import EncodedSet, encode
from marslora.models.loading import LoadedModel

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Rows:
    """The three splits, ready for the model."""

    train: EncodedSet
    validation: EncodedSet
    test: EncodedSet
    seed: int
    """Of the nested order: a calibration run on D rows had the first D of it."""

    def split(self, name: Split) -> EncodedSet:
        """One split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def steps(self, batch_size: int, order_seed: int, start: int, until: int) -> Iterator[list[int]]:
        """Training rows of every optimizer step from ``start`` to ``until`` examples."""
        nested = order.nested_order(len(self.train), self.seed)
        for positions in order.batches(len(self.train), batch_size, order_seed, start, until):
            yield nested[positions].tolist()


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
