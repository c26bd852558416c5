"""One optimizer step of a pack: K losses and one backward; clipping and update are separate for each member.

Numbers stay on the device until the gradients are there; then losses and norms come to the CPU in one transfer.
"""

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
    """The effect of a step on each of K members. Tensors are on the CPU."""

    loss_K: Tensor
    """Mean nats per answer token of the step's batch, before the update."""
    is_finite_K: Tensor
    """(K,) booleans; False for a member whose loss or gradient was NaN or infinite, which was not updated."""
    update_norms_K: dict[str, Tensor]
    """Norm of the change of each part's trained tensors, (K,) by part; empty unless ``measure_updates``."""


def train_step(
    pack: Pack, batches: Sequence[Batch], is_active_K: Tensor, *, measure_updates: bool = False
) -> StepResult:
    """Accumulate gradients over the micro-batches, clip each member's by its own norm, and update the active members.

    Learning rates are those set with `Pack.set_rates`; ``pack.position.step`` selects the dropout masks. An optimizer
    that also needs gradients at its previous point gets the same micro-batches there first, under the same masks.
    ``measure_updates`` fills `StepResult.update_norms_K`, at the cost of a copy of all trained tensors.
    """
    two_point = pack.two_point_optimizer
    if two_point is not None:
        two_point.set_active(is_active_K)
        with two_point.previous_point():
            _backward(pack, batches)
    loss_K = _backward(pack, batches)
    norms_K = gradient_norms(pack)
    clip_gradients(pack, norms_K)
    numbers = [loss_K, norms_K]
    if two_point is not None:
        numbers.append(member_norms(pack, (last for _, last in two_point.last_gradients())))
    is_finite_K, loss_K = _read_on_cpu(numbers)
    before = _copy_factors(pack) if measure_updates else {}
    if pack.optimizer:
        pack.optimizer.set_active(is_finite_K & is_active_K)
        pack.optimizer.step()
        pack.optimizer.zero_grad(set_to_none=True)
    return StepResult(loss_K, is_finite_K, _measure_updates(pack, before))


def _read_on_cpu(numbers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(Which members have finite numbers, the first of the numbers), both (K,), on the CPU: the step's one transfer."""
    values_NK = torch.stack([number.expand(numbers[-1].shape) for number in numbers]).cpu()
    return values_NK.isfinite().all(0), values_NK[0].to(numbers[0].dtype)


def _backward(pack: Pack, batches: Sequence[Batch]) -> Tensor:
    """Fill the gradients of the step's mean loss at the members' current point; return each member's loss, (K,)."""
    num_tokens = sum(batch.num_answer_tokens for batch in batches)
    loss_K: Tensor = torch.zeros((), device=pack.base.device)
    pack.position.training = True
    try:
        for micro_step, batch in enumerate(batches):
            pack.position.micro_step = micro_step
            part_K = pack.nats(batch) / max(num_tokens, 1)
            if part_K.requires_grad:
                torch.autograd.backward(part_K.sum())
            loss_K = loss_K + part_K.detach()
    finally:
        pack.position.training = False
    return loss_K


def gradient_norms(pack: Pack) -> Tensor:
    """(K,) norm of each member's gradient over all its trained tensors."""
    return member_norms(pack, (f.parameter.grad for _, _, f in pack.factors() if f.parameter.grad is not None))


def member_norms(pack: Pack, tensors: Iterable[Tensor]) -> Tensor:
    """(K,) norm of each member's rows of all ``tensors`` taken together."""
    squares_K: Tensor = torch.zeros(pack.num_members, device=pack.base.device)
    for tensor in tensors:
        squares_K = squares_K + tensor.flatten(1).square().sum(-1)
    return squares_K.sqrt()


def clip_gradients(pack: Pack, norms_K: Tensor) -> None:
    """Scale each member's gradient so that its norm is at most ``clip_norm``, by the rule of `clip_grad_norm_`.

    The gradient at the previous point is scaled by the same factor and not by one of its own: both belong to one loss,
    and their difference must remain the difference of one function.
    """
    limit = pack.base.training.clip_norm
    if not limit:
        return
    factor_K = (limit / (norms_K + 1e-6)).clamp(max=1.0)
    gradients = [f.parameter.grad for _, _, f in pack.factors() if f.parameter.grad is not None]
    if pack.two_point_optimizer is not None:
        gradients += [last for _, last in pack.two_point_optimizer.last_gradients()]
    for gradient in gradients:
        gradient.mul_(factor_K.view(-1, *(1,) * (gradient.ndim - 1)))


def _copy_factors(pack: Pack) -> dict[int, Tensor]:
    return {id(factor.parameter): factor.parameter.detach().clone() for _, _, factor in pack.factors()}


def _measure_updates(pack: Pack, before: dict[int, Tensor]) -> dict[str, Tensor]:
    squares: dict[str, Tensor] = defaultdict(lambda: torch.zeros(pack.num_members, device=pack.base.device))
    for part, _, factor in pack.factors() if before else ():
        change = factor.parameter.detach() - before[id(factor.parameter)]
        squares[part] = squares[part] + change.flatten(1).square().sum(-1)
    return dict(zip(squares, torch.stack([*squares.values()]).sqrt().cpu(), strict=True)) if squares else {}
