"""The loss of a run and its validation: nats and right guesses over answer tokens."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

IGNORED = -100


class TokenSums(NamedTuple):
    """Sums over answer tokens."""

    nats: Tensor
    correct: Tensor
    tokens: Tensor

    @classmethod
    def zero(cls, device: torch.device) -> TokenSums:
        """Nothing seen yet. float64: sums over many tokens."""
        return cls(*(torch.zeros((), dtype=torch.float64, device=device) for _ in range(3)))

    def plus(self, other: TokenSums) -> TokenSums:
        """Both together."""
        return TokenSums(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def token_sums(logits_BTV: Tensor, labels_BT: Tensor) -> TokenSums:
    """Sums over the answer tokens of a batch; the logits at one position predict the label at the next."""
    logits_NV, labels_N = _answers(logits_BTV, labels_BT)
    nats = cross_entropy(logits_NV, labels_N, reduction="sum")
    correct = (logits_NV.argmax(-1) == labels_N).sum()
    tokens = torch.tensor(labels_N.numel(), device=nats.device)
    return TokenSums(nats.double(), correct.double(), tokens.double())


def mean_answer_loss(outputs: Any, labels_BT: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Nats of the batch's answer tokens over ``num_items_in_batch``, the answer tokens of the whole optimizer step."""
    logits_NV, labels_N = _answers(outputs["logits"], labels_BT)
    total = cross_entropy(logits_NV, labels_N, reduction="sum")
    return total / (labels_N.numel() if num_items_in_batch is None else num_items_in_batch)


def _answers(logits_BTV: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The logits that predict answer tokens, in float32, and those tokens."""
    next_BT = labels_BT[:, 1:]
    is_answer_BT = next_BT != IGNORED
    return logits_BTV[:, :-1][is_answer_BT].float(), next_BT[is_answer_BT]
