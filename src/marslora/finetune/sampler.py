"""Divide the rows of each step into micro-batches, equally many for every process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from marslora.core.errors import ConfigError
from marslora.core.labels import IGNORED
from marslora.data import order
from marslora.finetune.evaluate import Collate


def plan_micro_batches(
    steps: Iterable[Iterable[int]], accumulation: int, rank: int = 0, num_processes: int = 1
) -> list[list[int]]:
    """The micro-batches of one process, ``accumulation`` per step, for which all processes share its rows evenly.

    A step with fewer rows than micro-batches is filled up with *blank* rows, ``-1 - row``. They run through the model,
    so that every process takes part in every exchange of gradients, but do not count (see `BlankingCollate`).
    """
    return [
        piece
        for step in steps
        for piece in _split_and_fill([int(row) for row in step], accumulation * num_processes)[rank::num_processes]
    ]


def _split_and_fill(rows: list[int], count: int) -> list[list[int]]:
    return [piece or [-1 - rows[0]] for piece in order.split_evenly(rows, count)]


def check_divisible(batch_size: int, accumulation: int, num_processes: int) -> None:
    """Raise `ConfigError` if a step has more micro-batches than examples."""
    if batch_size < accumulation * num_processes:
        raise ConfigError(
            f"`batch_size` must be at least `accumulation` x processes = {accumulation} x {num_processes}, "
            f"found {batch_size}. Raise it, lower `accumulation`, or use fewer processes."
        )


class BlankingCollate:
    """A collate function that also takes blank rows; all their labels are `IGNORED`."""

    def __init__(self, collate: Collate):
        self.collate = collate

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        """Collate ``rows``, of which ``-1 - row`` is a blank row with the inputs of ``row``."""
        blank = [position for position, row in enumerate(rows) if row < 0]
        batch = self.collate([-1 - row if row < 0 else row for row in rows])
        if blank:
            labels: Tensor = batch["labels"].clone()
            labels[blank] = IGNORED
            batch = {**batch, "labels": labels}
        return batch
