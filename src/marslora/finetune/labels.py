"""Add to batches the labels that some methods need: the task of each row and picture, and the tokens of questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from marslora.core.errors import DataError
from marslora.core.labels import IGNORED
from marslora.core.spec import DataSpec
from marslora.data import splits
from marslora.data.columns import read_column
from marslora.data.encode import EncodedRows
from marslora.data.rows import SPLITS, BatchSource, EncodedSplits, Split
from marslora.methods import QUESTION, TASK, UNIT_TASK, AbstractMethod

_PICTURES = ("pixel_values", "flattened_patches", "input_features", "input_values")
"""Keys of a batch whose first axis counts the inputs of a tower: pictures, patches or sounds."""


@dataclass(frozen=True)
class LabelledSet:
    """An `EncodedRows` whose batches have labels."""

    encoded: EncodedRows
    task_N: NDArray[np.int64] | None
    """(N,) index of every row's task; None if the method needs no tasks."""
    wants_questions: bool
    """Whether batches mark the tokens of questions."""

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row -> index of its example."""
        return self.encoded.rows

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        """The number of tokens of every row."""
        return self.encoded.num_tokens

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> dict[str, Any]:
        """The batch of the encoded rows, with the labels added."""
        batch: dict[str, Any] = self.encoded.batch(indices)
        if self.wants_questions:
            batch[QUESTION] = (batch["labels"] == IGNORED) & batch["attention_mask"].bool()
        if self.task_N is not None:
            task_B = self.task_N[np.asarray(indices)]
            batch[TASK] = torch.from_numpy(task_B)
            counts_B = self._num_units(np.asarray(indices))
            if counts_B is not None:
                batch[UNIT_TASK] = torch.from_numpy(np.repeat(task_B, counts_B))
        return batch

    def _num_units(self, indices: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """How many entries of the pictures' first axis belong to each row; None if there are no pictures."""
        place_B = self.encoded.picture_of[indices]
        for name, pictures in self.encoded.pictures.items():
            if name.startswith(_PICTURES):
                lengths = pictures.lengths[place_B]
                return np.where(place_B < 0, int(name in self.encoded.by_row), lengths)
        return None


def label_rows(rows: EncodedSplits[EncodedRows], data: DataSpec, method: AbstractMethod) -> EncodedSplits[BatchSource]:
    """Return ``rows`` with the labels that ``method`` needs.

    Raises `DataError` if a row names no task, or if a validation or test row names a task that no training row has.
    """
    tasks: tuple[str, ...] = ()
    task_of_row: dict[Split, list[str]] = {}
    if method.column is not None:
        for split in SPLITS:
            task_of_row[split] = _read_tasks(rows, data, split, method.column)
        tasks = tuple(sorted(set(task_of_row["train"])))
    if tasks or method.wants_questions:
        sets = {split: _label_split(rows, split, task_of_row.get(split), tasks, method) for split in SPLITS}
        return EncodedSplits(sets["train"], sets["validation"], sets["test"], rows.report, rows.seed, tasks)
    return rows


def _read_tasks(rows: EncodedSplits[EncodedRows], data: DataSpec, split: Split, name: str) -> list[str]:
    encoded = rows.split(split)
    all_examples = getattr(splits.load_splits(data), split)
    chosen = [all_examples[index] for index in encoded.rows]
    tasks = read_column(data, chosen, name, split)
    missing = [example.place for example, task in zip(chosen, tasks, strict=True) if task is None]
    if missing:
        raise DataError(
            f"{len(missing)} rows have no column `{name}`, e.g. {missing[0]}; the adapter needs it because it has a "
            "head for each task. Write every row's task into this column, or set the adapter's option `column` to "
            "another one."
        )
    return [str(task) for task in tasks]


def _label_split(
    rows: EncodedSplits[EncodedRows],
    split: Split,
    task_of_row: list[str] | None,
    tasks: tuple[str, ...],
    method: AbstractMethod,
) -> LabelledSet:
    if task_of_row is not None and (unknown := sorted(set(task_of_row) - set(tasks))):
        raise DataError(
            f"The tasks of the {split} rows must occur in the training rows, which have {list(tasks)}; found "
            f"{unknown}. Remove these {split} rows, or add training rows of their tasks."
        )
    task_N = None if task_of_row is None else np.array([tasks.index(task) for task in task_of_row], dtype=np.int64)
    return LabelledSet(rows.split(split), task_N, method.wants_questions)
