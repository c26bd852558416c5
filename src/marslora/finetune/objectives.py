"""The losses of a run with several objectives: of selected rows, from the model's outputs, or by a user's function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from marslora.core import plugins
from marslora.core.errors import ConfigError, TrainingError
from marslora.core.spec import DataSpec, ObjectiveSpec
from marslora.data import splits
from marslora.data.columns import read_column
from marslora.data.rows import BatchSource
from marslora.finetune.evaluate import Collate
from marslora.finetune.loss import average_over_step
from marslora.models.answers import AnswerOutputs, Batch, token_nats

GROUPS = "objective_of_row"
"""Key of a batch: for every row, the index of its objective among those that select rows; -1: none."""


class Objectives:
    """Named losses of a batch. Those that select rows add up to the ordinary loss of the step; the others are means."""

    def __init__(self, specs: Sequence[ObjectiveSpec]):
        self.specs = tuple(specs)
        self.of_rows = tuple(spec for spec in specs if spec.rows is not None)
        self.are_of_rows = len(self.of_rows) == len(self.specs)
        """Whether every objective selects rows, so that logits are needed at the answers only."""
        self.need_labels = any(spec.output is not None for spec in specs)
        """Whether the model itself needs the labels, because an objective is a loss that it computes."""
        self._functions = {spec.name: _import_function(spec) for spec in specs if spec.function is not None}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the objectives, in the order of their specs."""
        return tuple(spec.name for spec in self.specs)

    def losses(
        self, answers: AnswerOutputs, batch: Batch, group_B: Tensor, num_items: Tensor | float | None, pieces: int
    ) -> dict[str, Tensor]:
        """The micro-batch's share of every objective's loss in the optimizer step; absent objectives are left out.

        Args:
            answers: The model's outputs for the batch; with logits at all positions unless `are_of_rows`.
            batch: On the model's device.
            group_B: See `GROUPS`.
            num_items: Answer tokens of the step, by which the losses of rows are divided; None: those of the batch.
            pieces: Micro-batches of the step, by which the other losses are divided.

        Raises `TrainingError` for a loss that is not a scalar tensor or None.
        """
        rows = self._losses_of_rows(answers.logits_KNV, batch, group_B, num_items) if self.of_rows else {}
        loss_of = {
            spec.name: rows.get(spec.name, _divide(self._other(spec, answers.outputs, batch), pieces))
            for spec in self.specs
        }
        return {spec.name: spec.weight * loss for spec in self.specs if (loss := loss_of[spec.name]) is not None}

    def _losses_of_rows(
        self, logits_KNV: Tensor, batch: Batch, group_B: Tensor, num_items: Tensor | float | None
    ) -> dict[str, Tensor]:
        rows_N, _, tokens_N = batch.answers()
        nats_N = token_nats(logits_KNV, tokens_N).squeeze(0)
        group_N = group_B[rows_N]
        total = len(nats_N) if num_items is None else num_items
        present = set(torch.unique(group_N).tolist())
        return {
            spec.name: average_over_step(nats_N[group_N == place], total)
            for place, spec in enumerate(self.of_rows)
            if place in present
        }

    def _other(self, spec: ObjectiveSpec, outputs: Any, batch: Batch) -> Tensor | None:
        if spec.rows is not None:
            return None
        if spec.function is not None:
            return _check_scalar(self._functions[spec.name](outputs, {**batch.inputs, "labels": batch.labels_BT}), spec)
        return _check_scalar(_read_output(spec, outputs), spec)


class GroupingCollate:
    """A collate function that adds the objective of every row to the batch."""

    def __init__(self, collate: Collate, group_of_row: Sequence[int]):
        self.collate = collate
        self.group_N = torch.tensor(group_of_row)

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        """Collate ``rows``; a blank row (``-1 - row``) has the objective of the row that it stands for."""
        places = [-1 - row if row < 0 else row for row in rows]
        return {**self.collate(rows), GROUPS: self.group_N[places]}


def group_rows(objectives: Objectives, encoded: BatchSource, data: DataSpec) -> list[int]:
    """Return, for every encoded training row, the index of its objective among those that select rows.

    The index is -1 if no objective selects rows. Raises `ConfigError` if an objective has no row, or if a row belongs
    to no objective or to several.
    """
    if not objectives.of_rows:
        return [-1] * len(encoded)
    members = [_select_rows(spec, encoded, data) for spec in objectives.of_rows]
    for spec, chosen in zip(objectives.of_rows, members, strict=True):
        if not any(chosen):
            raise ConfigError(
                f"Objective `{spec.name}` must have training rows, but `rows: {spec.rows}` selects none of "
                f"{len(encoded)}. {_SELECTORS}"
            )
    groups = []
    for row, each in enumerate(zip(*members, strict=True)):
        if sum(each) != 1:
            names = [spec.name for spec, chosen in zip(objectives.of_rows, each, strict=True) if chosen]
            raise ConfigError(
                f"Every training row must belong to exactly one objective; row {row} belongs to {names or 'none'}. "
                f"{_SELECTORS}"
            )
        groups.append(each.index(True))
    return groups


_SELECTORS = "Set `rows` to all, text (rows without media), pictures, sounds, videos, or COLUMN=VALUE."
_MEDIA = {"pictures": "images", "sounds": "sounds", "videos": "videos"}
"""Selector -> the attribute of an example that holds what it selects."""


def _select_rows(spec: ObjectiveSpec, encoded: BatchSource, data: DataSpec) -> list[bool]:
    """Return, for every encoded row, whether the objective selects it."""
    if spec.rows == "all":
        return [True] * len(encoded)
    train = splits.load_splits(data).train
    chosen = [train[index] for index in encoded.rows]
    if spec.rows == "text":
        return [not example.media_digests for example in chosen]
    if spec.rows in _MEDIA:
        return [bool(getattr(example, _MEDIA[spec.rows])) for example in chosen]
    name, _, wanted = str(spec.rows).partition("=")
    return [value == wanted for value in read_column(data, chosen, name)]


def _import_function(spec: ObjectiveSpec) -> Callable[[Any, Mapping[str, Any]], Any]:
    return plugins.import_object(str(spec.function))  # type: ignore[no-any-return]


def _read_output(spec: ObjectiveSpec, outputs: Any) -> Any:
    """The named output; None if the model has it, but not for this batch (a `ModelOutput` does not list None)."""
    name = str(spec.output)
    if name in outputs:
        return outputs[name]
    if name not in getattr(outputs, "__dataclass_fields__", {}):
        raise TrainingError(
            f"Objective `{spec.name}` reads the model's output `{name}`, but the model returned {sorted(outputs)}. "
            "Name one of these; a loss that a batch does not have must be returned as None."
        )
    return None


def _check_scalar(loss: Any, spec: ObjectiveSpec) -> Tensor | None:
    if loss is None or (isinstance(loss, Tensor) and loss.ndim == 0):
        return loss
    described = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
    raise TrainingError(
        f"The loss of objective `{spec.name}` must be a scalar tensor or None, found {described}. Reduce it, e.g. with "
        "`.mean()`."
    )


def _divide(loss: Tensor | None, pieces: int) -> Tensor | None:
    return None if loss is None else loss / pieces
