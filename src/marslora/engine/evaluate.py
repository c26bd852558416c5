"""Score the members of a pack, or the untouched model, on the validation rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

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
    nats_K = torch.zeros(members, dtype=torch.float64)
    correct_K = torch.zeros(members, dtype=torch.float64)
    num_tokens = 0
    for collated in batches:
        batch = base.batch(collated)
        with base.mixed_precision():
            logits_KNV = answer_logits(base.model, base.head, batch, members)
        sums = token_sums(logits_KNV, batch.answers()[2])
        nats_K += sums.nats_K.double().cpu()
        correct_K += sums.correct_K.double().cpu()
        num_tokens += sums.num_tokens
    return Scores(nats_K / max(num_tokens, 1), correct_K / max(num_tokens, 1))
