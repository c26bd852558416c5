"""One optimizer step of a pack: K losses, one backward, and from there on every member for itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from marslora.engine.pack import Pack
from marslora.models.answers import Batch


@dataclass(frozen=True)
class StepResult:
    """What a step did to each of K members. Tensors are on the CPU."""

    loss_K: Tensor
    """Mean nats per answer token of the step's batch, before the update."""
    is_finite_K: Tensor
    """False for a member whose loss or gradient was no number: it was not updated."""
    update_norms_K: dict[str, Tensor]
    """Norm of the change of each part's trained tensors; empty unless asked for."""


def train_step(
    pack: Pack, batches: Sequence[Batch], is_active_K: Tensor, *, measure_updates: bool = False
) -> StepResult:
    """Accumulate over the micro-batches, clip each member's gradient by its own norm, update the members that may move.

    Learning rates are those set with `Pack.set_rates`; ``pack.clock.step`` names the dropout masks. An optimizer that
    looks back has the same micro-batches at its previous point first, under the same masks.
    """
    look = pack.two_point_optimizer
    if look is not None:
        look.set_active(is_active_K)
        with look.previous_point():
            _backward(pack, batches)
    loss_K = _backward(pack, batches)
    norms_K = gradient_norms(pack)
    is_finite_K = (loss_K.isfinite() & norms_K.isfinite()).cpu()
    if look is not None:
        is_finite_K &= norms_of(pack, (last for _, last in look.last_gradients())).isfinite().cpu()
    clip_gradients(pack, norms_K)
    before = _copies(pack) if measure_updates else {}
    if pack.optimizer:
        pack.optimizer.set_active(is_finite_K & is_active_K)
        pack.optimizer.step()
        pack.optimizer.zero_grad(set_to_none=True)
    return StepResult(loss_K.cpu(), is_finite_K, _update_norms(pack, before))


def _backward(pack: Pack, batches: Sequence[Batch]) -> Tensor:
    """Fill the gradients of the step's mean loss where the members stand; that loss of each member, (K,)."""
    num_tokens = sum(int((batch.labels_BT[:, batch.shift :] != -100).sum()) for batch in batches)
    loss_K: Tensor = torch.zeros((), device=pack.base.device)
    pack.clock.training = True
    try:
        for micro_step, batch in enumerate(batches):
            pack.clock.micro_step = micro_step
            part_K = pack.token_sums(batch).nats_K / max(num_tokens, 1)
            if part_K.requires_grad:
                torch.autograd.backward(part_K.sum())
            loss_K = loss_K + part_K.detach()
    finally:
        pack.clock.training = False
    return loss_K


def gradient_norms(pack: Pack) -> Tensor:
    """(K,) norm of each member's gradient over all its trained tensors."""
    return norms_of(pack, (f.parameter.grad for _, _, f in pack.factors() if f.parameter.grad is not None))


def norms_of(pack: Pack, tensors: Iterable[Tensor]) -> Tensor:
    """(K,) norm of each member's rows of all ``tensors`` together."""
    squares_K: Tensor = torch.zeros(pack.num_members, device=pack.base.device)
    for tensor in tensors:
        squares_K = squares_K + tensor.flatten(1).square().sum(-1)
    return squares_K.sqrt()


def clip_gradients(pack: Pack, norms_K: Tensor) -> None:
    """Scale each member's gradient so that its norm is at most ``clip_norm``; the rule of `clip_grad_norm_`.

    The gradient at the previous point is scaled by the same share, not by its own: both belong to one loss, and their
    difference must stay that of one function.
    """
    limit = pack.base.training.clip_norm
    if not limit:
        return
    share_K = (limit / (norms_K + 1e-6)).clamp(max=1.0)
    gradients = [f.parameter.grad for _, _, f in pack.factors() if f.parameter.grad is not None]
    if pack.two_point_optimizer is not None:
        gradients += [last for _, last in pack.two_point_optimizer.last_gradients()]
    for gradient in gradients:
        gradient.mul_(share_K.view(-1, *(1,) * (gradient.ndim - 1)))


def _copies(pack: Pack) -> dict[int, Tensor]:
    return {id(factor.parameter): factor.parameter.detach().clone() for _, _, factor in pack.factors()}


def _update_norms(pack: Pack, before: dict[int, Tensor]) -> dict[str, Tensor]:
    squares: dict[str, Tensor] = defaultdict(lambda: torch.zeros(pack.num_members))
    for part, _, factor in pack.factors() if before else ():
        change = factor.parameter.detach() - before[id(factor.parameter)]
        squares[part] += change.flatten(1).square().sum(-1).cpu()
    return {part: squares_K.sqrt() for part, squares_K in squares.items()}
