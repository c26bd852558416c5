"""Score the model of a run on its splits, with and without the adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from marslora.core.spec import TrainingSpec
from marslora.data.rows import BatchSource, EncodedSplits
from marslora.finetune.cost import FlopsPerRow, count_flops
from marslora.finetune.evaluate import SplitScore, evaluate, move_to_device
from marslora.finetune.generated_answers import AnswerMetric
from marslora.finetune.loss import AnswerLoss
from marslora.methods import AbstractChange
from marslora.models.precision import mixed_precision


class Scorer:
    """Scores one model on the rows of one run, and counts what a row costs."""

    def __init__(
        self,
        change: AbstractChange,
        answers: AnswerLoss,
        rows: EncodedSplits[BatchSource],
        training: TrainingSpec,
        dtype: torch.dtype,
        metric: AnswerMetric | None = None,
    ):
        self.change = change
        self.model = change.model
        self.answers = answers
        self.rows = rows
        self.batch_size = max(1, training.batch_size // training.accumulation)
        self.dtype = dtype
        self.metric = metric
        self.num_scored = 0
        """Rows scored since the run was last started."""

    def score(self, split: Literal["validation", "test"]) -> SplitScore:
        """Score the adapted model on a split."""
        rows = self.rows.split(split)
        self.num_scored += len(rows)
        score = evaluate(self.model, self.answers, rows.batch, len(rows), self.batch_size, self.dtype)
        return score if self.metric is None else score._replace(metric=self.metric.score(split))

    def base_score(self, split: Literal["validation", "test"]) -> SplitScore:
        """Score the model without its adapter on a split."""
        with self.change.disabled():
            return self.score(split)

    def count_generation_flops(self) -> float:
        """Operations of generating answers since the run was last started."""
        return 0.0 if self.metric is None else self.metric.cost.answers * self.metric.cost.flops_per_answer

    def flops_per_row(
        self, loss: Callable[[dict[str, Any]], Tensor], num_backwards: int, num_passes: int
    ) -> FlopsPerRow:
        """Count the operations of a row in training and in scoring, on the first training rows.

        ``loss`` computes the training loss of a batch; it runs backward ``num_backwards`` times, and all of it
        ``num_passes`` times per step.
        """
        device = next(self.model.parameters()).device
        num_rows = min(self.batch_size, len(self.rows.train))
        batch = self.rows.train.batch(range(num_rows))

        def train() -> None:
            with mixed_precision(device, self.dtype):
                total = loss(move_to_device(batch, device))
            for more in reversed(range(num_backwards)):
                total.backward(retain_graph=more > 0)  # type: ignore[no-untyped-call]

        trained = count_flops(train)
        self.model.zero_grad()
        scored = count_flops(lambda: evaluate(self.model, self.answers, lambda _: batch, 1, 1, self.dtype))
        return FlopsPerRow(num_passes * trained / num_rows, scored / num_rows)
