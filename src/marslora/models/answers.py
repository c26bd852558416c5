"""The loss of the answer tokens, with logits for these tokens only; for K members at once, each on its own chunk.

A batch is repeated K times, and a *chunk* is one member's copy of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from marslora.core.labels import IGNORED

SCORED_LOGITS = 1 << 24
"""Logits that are scored at a time where no gradient is needed: in float32, with their softmax, they take 128 MB."""
_running: ContextVar[Mapping[str, Tensor]] = ContextVar("running", default={})  # noqa: B039 (never changed)
"""The tensors on the CPU of the batch that a model runs on now."""


def inputs_on_cpu() -> Mapping[str, Tensor]:
    """The inputs of the batch that a model runs on now, as they were before they were moved to its device."""
    return _running.get()


@contextlib.contextmanager
def running_on(on_cpu: Mapping[str, Tensor]) -> Iterator[None]:
    """Within it, `inputs_on_cpu` are these."""
    token = _running.set(on_cpu)
    try:
        yield
    finally:
        _running.reset(token)


@dataclass(frozen=True)
class Batch:
    """One micro-batch on the model's device. It is kept once, and repeated for the members only while it runs.

    Where its answers are is found on the CPU, before it is moved, so that no number has to come back from the device.
    """

    inputs: dict[str, Any]
    """Keyword arguments of the model without labels; the first dimension of a tensor is rows, tiles or patches."""
    labels_BT: Tensor
    """`IGNORED` where a token is not part of an answer."""
    shift: int = 1
    """The logits of a position predict the label this many positions later: 1, or 0 in encoder-decoder models."""
    on_cpu: Mapping[str, Tensor] = field(default_factory=dict)
    """Those of the inputs and labels that were on the CPU before the batch was moved, by name."""

    @classmethod
    def of(cls, batch: Mapping[str, Any], device: torch.device, *, is_encoder_decoder: bool = False) -> Batch:
        """A collated batch with its labels, moved to ``device``."""
        moved = {name: _move(value, device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        on_cpu = {name: value for name, value in tensors.items() if value.device.type == "cpu"}
        labels_BT = moved["labels"]
        if is_encoder_decoder:
            return cls(moved, labels_BT, 0, on_cpu)
        return cls({name: value for name, value in moved.items() if name != "labels"}, labels_BT, 1, on_cpu)

    @property
    def num_rows(self) -> int:
        """The number of rows B."""
        return self.labels_BT.shape[0]

    def answers(self) -> tuple[Tensor, Tensor, Tensor]:
        """(rows, positions, tokens), each (N,), of the answer tokens; a position is where a token is predicted."""
        return self._answers

    @cached_property
    def _answers(self) -> tuple[Tensor, Tensor, Tensor]:
        labels_BT = self.on_cpu.get("labels", self.labels_BT)[:, self.shift :]
        rows_N, positions_N = (labels_BT != IGNORED).nonzero(as_tuple=True)
        tokens_N, device = labels_BT[rows_N, positions_N], self.labels_BT.device
        return _move(rows_N, device), _move(positions_N, device), _move(tokens_N, device)

    @property
    def num_answer_tokens(self) -> int:
        """The number of answer tokens N."""
        return len(self.answers()[2])

    def repeated(self, members: int) -> dict[str, Any]:
        """The inputs repeated ``members`` times along their first dimension."""
        if members == 1:
            return self.inputs
        return {
            name: torch.cat([value] * members) if isinstance(value, Tensor) and value.ndim else value
            for name, value in self.inputs.items()
        }


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on ``device``; the CPU does not wait until it is there."""
    return tensor.to(device, non_blocking=True)


class TokenSums(NamedTuple):
    """Sums over N answer tokens, for each of K members."""

    nats_K: Tensor
    """(K,) sums of nats, with a gradient if the logits have one."""
    correct_K: Tensor
    """(K,) numbers of tokens predicted correctly."""
    num_tokens: int
    """The number of answer tokens N, the same for all members."""


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32 if it is in half precision, else as it is."""
    return tensor.to(torch.promote_types(torch.float32, tensor.dtype))


class AnswerHead:
    """Lets the head of a language model run only at the positions that predict answer tokens.

    The hidden states that reach the head, (rows, T, D), are replaced by those of these positions, (1, N, D). A model
    whose head is not called as a module returns all logits, of which these positions are taken. The head is looked up
    each time, since an adapter may have taken its place.
    """

    def __init__(self, model: Any):
        self._model = model
        self._positions: tuple[Tensor, Tensor] | None = None

    @contextlib.contextmanager
    def at(self, rows_N: Tensor, positions_N: Tensor) -> Iterator[None]:
        """Within it, the head only gets these positions."""
        head = None if self._model.config.is_encoder_decoder else self._model.get_output_embeddings()
        if not isinstance(head, nn.Module):
            yield
            return
        self._positions = (rows_N, positions_N)
        handle = head.register_forward_pre_hook(self._gather)
        try:
            yield
        finally:
            handle.remove()

    def _gather(self, _module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        assert self._positions is not None
        hidden_BTD, *rest = arguments
        return (hidden_BTD[self._positions].unsqueeze(0), *rest)


class AnswerOutputs(NamedTuple):
    """What a model returned for a batch."""

    logits_KNV: Tensor
    """(K, N, V) logits that predict the N answer tokens, for the chunk of each member."""
    outputs: Any
    """The model's outputs; their logits are at all positions only if there was no `AnswerHead`."""


def answer_outputs(model: Any, head: AnswerHead | None, batch: Batch, members: int = 1) -> AnswerOutputs:
    """Run a model on ``members`` chunks. Without ``head``, logits at all positions are computed: the plain path."""
    rows_N, positions_N, _ = batch.answers()
    chunks_KN = rows_N + batch.num_rows * torch.arange(members, device=rows_N.device).unsqueeze(-1)
    rows, positions = chunks_KN.flatten(), positions_N.repeat(members)
    with running_on(batch.on_cpu), head.at(rows, positions) if head else contextlib.nullcontext():
        outputs = model(**batch.repeated(members), use_cache=False)
    logits: Tensor = outputs.logits
    if logits.shape[:2] != (1, len(rows)):
        logits = logits[rows, positions]
    return AnswerOutputs(logits.view(members, len(rows_N), logits.shape[-1]), outputs)


def answer_logits(model: Any, head: AnswerHead | None, batch: Batch, members: int) -> Tensor:
    """The ``logits_KNV`` of `answer_outputs`."""
    return answer_outputs(model, head, batch, members).logits_KNV


def token_sums(logits_KNV: Tensor, tokens_N: Tensor) -> TokenSums:
    """Nats and correct predictions of each member, summed over the N tokens; nats in float32 at least."""
    correct_K = (logits_KNV.detach().argmax(-1) == tokens_N).sum(-1)
    return TokenSums(token_nats(logits_KNV, tokens_N).sum(-1), correct_K, len(tokens_N))


def token_nats(logits_KNV: Tensor, tokens_N: Tensor) -> Tensor:
    """(K, N) nats of each answer token, in float32 at least."""
    members, num_tokens, vocabulary = logits_KNV.shape
    tokens, logits = tokens_N.expand(members, -1).reshape(-1), logits_KNV.reshape(-1, vocabulary)
    if not len(tokens) or logits.requires_grad:
        nats = cross_entropy(at_least_float32(logits), tokens, reduction="none")
    else:
        size = max(1, SCORED_LOGITS // vocabulary)
        pieces = zip(torch.split(logits, size), torch.split(tokens, size), strict=True)
        nats = torch.cat([cross_entropy(at_least_float32(some), own, reduction="none") for some, own in pieces])
    return nats.view(members, num_tokens)
