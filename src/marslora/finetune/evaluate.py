"""Loss and accuracy of a model on a split, shared out over the processes of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import distributed, nn

from marslora.finetune.loss import AnswerLoss
from marslora.models.precision import mixed_precision

Collate = Callable[[Sequence[int]], dict[str, Any]]


class SplitScore(NamedTuple):
    """Mean nats per answer token, and the share of answer tokens guessed right."""

    loss: float
    accuracy: float


def world() -> tuple[int, int]:
    """(rank, number of processes) of this run."""
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
    """The score on rows 0 to ``num_rows``: every process takes each n-th batch, and all get the same score.

    ``dtype`` is the model's: in half precision it runs in mixed precision. The model is left in evaluation mode.
    """
    model.eval()
    rank, num_processes = world()
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


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on ``device``."""
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
