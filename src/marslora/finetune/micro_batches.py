"""Find how many micro-batches a step of the final run needs to fit into the memory there is."""

from __future__ import annotations

import torch
from torch import distributed
from transformers import TrainingArguments

from marslora.core.spec import FinalSpec
from marslora.data.rows import BatchSource, EncodedSplits
from marslora.finetune.evaluate import get_rank_and_size, move_to_device
from marslora.finetune.loss import AnswerLoss
from marslora.methods import AbstractChange
from marslora.models.loading import LoadedModel
from marslora.models.memory import (
    ESTIMATE_MARGIN,
    MEASURED_ROWS,
    PROCESSOR_ACTIVATIONS,
    SHARE,
    UPDATE_COPIES,
    free_bytes,
    measure_kept,
)
from marslora.models.precision import mixed_precision
from marslora.optim import AbstractOptimizer


def split_for_memory(
    spec: FinalSpec,
    arguments: TrainingArguments,
    loaded: LoadedModel,
    rows: EncodedSplits[BatchSource],
    change: AbstractChange,
    optimizer: AbstractOptimizer,
) -> FinalSpec:
    """The spec with as many micro-batches as memory asks for if its ``micro_batch`` is ``auto``, else as it is.

    Trainer's ``arguments`` are changed with it. All processes take the number of the one with the least memory.
    """
    training = spec.training
    if training.micro_batch != "auto":
        return spec
    processes = get_rank_and_size()[1]
    room = SHARE * free_bytes(loaded.device) - _bytes_of_update(change, optimizer)
    if loaded.device.type == "cpu":
        room = min(room, PROCESSOR_ACTIVATIONS)
    rows_that_fit = int(room / (ESTIMATE_MARGIN * _bytes_per_row(loaded, rows, change)))
    pieces = -(-training.batch_size // (max(1, rows_that_fit) * processes))
    pieces = _agree(min(pieces, training.batch_size // processes), loaded.device)
    arguments.gradient_accumulation_steps = pieces
    arguments.per_device_train_batch_size = max(1, training.batch_size // (pieces * processes))
    return spec.model_copy(update={"training": training.model_copy(update={"accumulation": pieces})})


def _bytes_of_update(change: AbstractChange, optimizer: AbstractOptimizer) -> int:
    """Gradients, state of the optimizer, and what it copies for a moment."""
    return sum(
        each.parameter.nbytes * (1 + len(optimizer.buffers(each.parameter)) + UPDATE_COPIES)
        for each in change.trainables()
    )


def _bytes_per_row(loaded: LoadedModel, rows: EncodedSplits[BatchSource], change: AbstractChange) -> float:
    """Bytes that one of the longest training rows keeps for the backward.

    It is measured in evaluation mode, without recomputing: no random number is drawn before training begins.
    """
    lengths = rows.train.num_tokens
    longest = sorted(range(len(rows.train)), key=lambda row: -int(lengths[row]))[:MEASURED_ROWS]
    answers = AnswerLoss(loaded.model)
    batch = answers.batch(move_to_device(rows.train.batch(longest), loaded.device), loaded.device)
    with mixed_precision(loaded.device, loaded.dtype):
        kept = measure_kept(lambda: answers.nats(change.model, batch), change.model.parameters())
    return max(1, kept.total + 2 * kept.largest) / len(longest)


def _agree(pieces: int, device: torch.device) -> int:
    """The largest number of any process."""
    if get_rank_and_size()[1] == 1:
        return pieces
    shared = torch.tensor(pieces, device=device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return int(shared)
