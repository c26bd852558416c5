"""The loss and the accuracy of a model on answer tokens; logits are computed for these tokens only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from marslora.models.answers import AnswerHead, AnswerOutputs, Batch, answer_outputs, token_nats, token_sums


class AnswerLoss:
    """Runs a model, adapted or wrapped, and measures its answer tokens."""

    def __init__(self, base: PreTrainedModel):
        """``base`` is the model inside any wrapper; it must be adapted already."""
        self.head = AnswerHead(base)
        self.is_encoder_decoder = bool(base.config.is_encoder_decoder)

    def batch(self, collated: Mapping[str, Any], device: torch.device) -> Batch:
        """The collated batch on ``device``."""
        return Batch.of(collated, device, is_encoder_decoder=self.is_encoder_decoder)

    def at_answers(self, model: nn.Module, batch: Batch) -> AnswerOutputs:
        """The model's outputs, with logits for the answer tokens only."""
        return answer_outputs(model, self.head, batch)

    def everywhere(self, model: nn.Module, batch: Batch, *, with_labels: bool) -> AnswerOutputs:
        """The model's outputs, with logits at every position; ``with_labels`` lets the model compute its own losses."""
        inputs = {**batch.inputs, "labels": batch.labels_BT} if with_labels else batch.inputs
        return answer_outputs(model, None, replace(batch, inputs=inputs))

    def nats(self, model: nn.Module, batch: Batch) -> Tensor:
        """(N,) nats of the answer tokens."""
        return token_nats(self.at_answers(model, batch).logits_KNV, batch.answers()[2]).squeeze(0)

    def sums(self, model: nn.Module, batch: Batch) -> Tensor:
        """(nats, correctly predicted tokens, tokens) of the batch: sums, (3,) in float64."""
        sums = token_sums(self.at_answers(model, batch).logits_KNV, batch.answers()[2])
        nats = sums.nats_K.sum().double()
        return torch.stack([nats, sums.correct_K.sum().double(), nats.new_tensor(sums.num_tokens)])


def average_over_step(nats_N: Tensor, num_items: Tensor | float | None) -> Tensor:
    """A micro-batch's share of the step's mean loss: its nats over ``num_items``, the step's answer tokens.

    None for ``num_items`` means that the micro-batch is the whole step.
    """
    return nats_N.sum() / (max(len(nats_N), 1) if num_items is None else num_items)
