"""Score the members of a pack, or the untouched model, on the validation rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from marslora.core.files import write_text
from marslora.core.record import digest_texts
from marslora.engine.pack import Base, Pack
from marslora.models.answers import answer_logits, token_sums


class Scores(NamedTuple):
    """Scores of K members, on the CPU in float64."""

    loss_K: Tensor
    """(K,) mean nats per answer token."""
    accuracy_K: Tensor
    """(K,) shares of answer tokens predicted correctly."""


@torch.no_grad()
def evaluate(base: Base, batches: Iterable[dict[str, Any]], pack: Pack | None = None) -> Scores:
    """The scores of the members of ``pack`` on collated batches; without a pack those of the model as it is (K = 1)."""
    members = pack.num_members if pack else 1
    nats_K = torch.zeros(members, dtype=torch.float64, device=base.device)
    correct_K = torch.zeros_like(nats_K)
    num_tokens = 0
    for collated in batches:
        batch = base.batch(collated)
        with base.mixed_precision():
            logits_KNV = answer_logits(base.model, base.head, batch, members)
        sums = token_sums(logits_KNV, batch.answers()[2])
        nats_K += sums.nats_K.double()
        correct_K += sums.correct_K.double()
        num_tokens += sums.num_tokens
    return Scores(*(torch.stack([nats_K, correct_K]).cpu() / max(num_tokens, 1)))


def write_scores(path: Path, scores: Scores) -> None:
    """Keep scores in a file."""
    write_text(path, json.dumps({"loss": scores.loss_K.tolist(), "accuracy": scores.accuracy_K.tolist()}))


def read_scores(path: Path) -> Scores | None:
    """The scores in a file, exactly as they were measured; None if it does not exist."""
    if not path.exists():
        return None
    values = json.loads(path.read_text())
    return Scores(*(torch.tensor(values[name], dtype=torch.float64) for name in ("loss", "accuracy")))


@torch.no_grad()
def digest_weights(model: nn.Module) -> str:
    """A digest that changes with the sum of any tensor of the model."""
    lines = []
    for name, tensor in model.state_dict().items():
        summable = tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor
        lines.append(f"{name} {tuple(tensor.shape)} {float(summable.sum(dtype=torch.float64))}")
    return digest_texts(*lines)
