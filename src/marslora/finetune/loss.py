"""The loss of a run and its validation: nats and right guesses over answer tokens, logits made for these alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from marslora.models.answers import AnswerHead, AnswerOutputs, Batch, answer_outputs, token_nats, token_sums


class AnswerLoss:
    """Runs a model, adapted or wrapped, and looks at its answer tokens."""

    def __init__(self, base: PreTrainedModel):
        """Of the model that ``base`` is inside: make it when the model is adapted."""
        self.head = AnswerHead(base)
        self.is_encoder_decoder = bool(base.config.is_encoder_decoder)

    def batch(self, collated: Mapping[str, Any], device: torch.device) -> Batch:
        """A collated batch on ``device``."""
        return Batch.of(collated, device, is_encoder_decoder=self.is_encoder_decoder)

    def at_answers(self, model: nn.Module, batch: Batch) -> AnswerOutputs:
        """What the model gives at the answers."""
        return answer_outputs(model, self.head, batch)

    def everywhere(self, model: nn.Module, batch: Batch, *, with_labels: bool) -> AnswerOutputs:
        """What the model gives, with logits at every position; it computes its own losses where it sees the labels."""
        shown = {**batch.inputs, "labels": batch.labels_BT} if with_labels else batch.inputs
        return answer_outputs(model, None, replace(batch, inputs=shown))

    def nats(self, model: nn.Module, batch: Batch) -> Tensor:
        """(N,) nats of the answer tokens."""
        return token_nats(self.at_answers(model, batch).logits_KNV, batch.answers()[2]).squeeze(0)

    def sums(self, model: nn.Module, batch: Batch) -> Tensor:
        """Nats, right guesses and tokens, (3,) in float64: sums over many tokens."""
        sums = token_sums(self.at_answers(model, batch).logits_KNV, batch.answers()[2])
        nats = sums.nats_K.sum().double()
        return torch.stack([nats, sums.correct_K.sum().double(), nats.new_tensor(sums.num_tokens)])


def mean_of_step(nats_N: Tensor, num_items: Tensor | float | None) -> Tensor:
    """A micro-batch's share of the mean over ``num_items``, the answer tokens of the optimizer step (None: its own)."""
    return nats_N.sum() / (max(len(nats_N), 1) if num_items is None else num_items)
