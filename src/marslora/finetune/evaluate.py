"""Measure loss and accuracy of a model on a split; the processes of a run divide its batches among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import distributed, nn

from marslora.finetune.loss import AnswerLoss
from marslora.models.precision import mixed_precision

Collate = Callable[[Sequence[int]], dict[str, Any]]


class SplitScore(NamedTuple):
    """The score of a model on one split."""

    loss: float
    """Mean nats per answer token."""
    accuracy: float
    """Share of answer tokens predicted correctly."""
    metric: float | None = None
    """Of generated answers; None if the loss decides."""


def get_rank_and_size() -> tuple[int, int]:
    """(rank of this process, number of processes) of the distributed run; (0, 1) if it is not distributed."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


@torch.no_grad()
def evaluate(
    model: nn.Module,
    answers: AnswerLoss,
    collate: Collate,
    num_rows: int,
    batch_size: int,
    dtype: torch.dtype,
) -> SplitScore:
    """Score a model on the first ``num_rows`` rows. Each of n processes runs every n-th batch; all return one score.

    ``dtype`` is the model's; a model in half precision runs in mixed precision. It is left in evaluation mode.
    """
    model.eval()
    rank, num_processes = get_rank_and_size()
    device = next(model.parameters()).device
    total = torch.zeros(3, dtype=torch.float64, device=device)
    for start in range(rank * batch_size, num_rows, num_processes * batch_size):
        batch = answers.batch(collate(range(start, min(start + batch_size, num_rows))), device)
        with mixed_precision(device, dtype):
            total += answers.sums(model, batch)
    if num_processes > 1:
        distributed.all_reduce(total)
    nats, correct, tokens = total.tolist()
    return SplitScore(nats / max(tokens, 1.0), correct / max(tokens, 1.0))


def move_to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on ``device``."""
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
