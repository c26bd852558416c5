"""Which rows each process sees in each micro-batch: every step has the same number of them everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from marslora.core.errors import ConfigError
from marslora.core.labels import IGNORED
from marslora.data import order
from marslora.finetune.evaluate import Collate


def micro_batches(
    steps: Iterable[Iterable[int]], accumulation: int, rank: int = 0, num_processes: int = 1
) -> list[list[int]]:
    """The micro-batches of one process: ``accumulation`` a step, each step's rows shared out evenly over all processes.

    A step with fewer rows than pieces is filled up with *blank* rows, ``-1 - row``: they run through the model, so
    that every process takes part in every exchange of gradients, and count nothing (see `BlankingCollate`).
    """
    return [
        piece
        for step in steps
        for piece in _filled([int(row) for row in step], accumulation * num_processes)[rank::num_processes]
    ]


def _filled(rows: list[int], count: int) -> list[list[int]]:
    return [piece or [-1 - rows[0]] for piece in order.split_evenly(rows, count)]


def check_divisible(batch_size: int, accumulation: int, num_processes: int) -> None:
    """`ConfigError` where a step has more micro-batches than examples."""
    if batch_size < accumulation * num_processes:
        raise ConfigError(
            f"`batch_size` must be at least accumulation x processes = {accumulation} x {num_processes}, "
            f"found {batch_size}. Lower `accumulation` or use fewer processes."
        )


class BlankingCollate:
    """A collate function that also takes blank rows: their labels count nothing."""

    def __init__(self, collate: Collate):
        self.collate = collate

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        """The batch of ``rows``."""
        blank = [position for position, row in enumerate(rows) if row < 0]
        batch = self.collate([-1 - row if row < 0 else row for row in rows])
        if blank:
            labels: Tensor = batch["labels"].clone()
            labels[blank] = IGNORED
            batch = {**batch, "labels": labels}
        return batch
