"""The rows of a pack: which of them every step sees, in micro-batches, and the fixed batches of a validation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from marslora.core.spec import DataSpec, TrainingSpec
from marslora.data import examples, order
from marslora.data._rows import Example
from marslora.data.encode import EncodedSet, encode


@dataclass(frozen=True)
class Rows:
    """Encoded training and validation rows."""

    train: EncodedSet
    validation: EncodedSet
    seed: int
    """Of the nested order of the training rows."""

    def steps(
        self, data_examples: int, training: TrainingSpec, order_seed: int, start: int, until: int
    ) -> Iterator[list[dict[str, Tensor]]]:
        """The micro-batches of every optimizer step from ``start`` to ``until`` examples seen."""
        nested = order.nested_order(len(self.train), self.seed)
        data_examples = min(data_examples, len(self.train))
        for positions in order.batches(data_examples, training.batch_size, order_seed, start, until):
            rows = nested[positions].tolist()
            yield [self.train.batch(piece) for piece in pieces(rows, training.accumulation)]

    def validation_batches(self, batch_size: int) -> Iterator[dict[str, Tensor]]:
        """All validation rows, those of like length together, always the same batches."""
        by_length = sorted(range(len(self.validation)), key=lambda row: (int(self.validation.num_tokens[row]), row))
        for start in range(0, len(by_length), batch_size):
            yield self.validation.batch(by_length[start : start + batch_size])


def pieces(rows: list[int], count: int) -> list[list[int]]:
    """``rows`` in at most ``count`` pieces of nearly equal size, none of them empty."""
    bounds = [index * len(rows) // count for index in range(count + 1)]
    return [rows[low:high] for low, high in itertools.pairwise(bounds) if high > low]


def load_rows(
    data: DataSpec, processor: Any, cache_folder: str, progress: Callable[[int, int], None] | None = None
) -> Rows:
    """Read and encode the training and validation rows; encoded rows are kept in ``cache_folder``."""
    splits = examples.load(data)

    def encoded(rows: tuple[Example, ...]) -> EncodedSet:
        return encode(
            rows,
            processor,
            cache_folder=cache_folder,
            max_length=data.max_length,
            max_bad_share=data.max_bad_share,
            progress=progress,
        )

    return Rows(encoded(splits.train), encoded(splits.validation), data.seed)
