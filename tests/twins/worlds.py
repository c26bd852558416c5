"""Small worlds for twins: a frozen model with batches to train on, and members trained on it in two ways."""

import torch

from marslora.core.allocation import Allocation
from marslora.core.schedule import num_steps
from marslora.core.spec import MemberSpec, TrainingSpec
from marslora.engine.pack import Base, Member, Pack
from marslora.engine.step import train_step
from marslora.models.answers import AnswerHead
from marslora.models.discovery import discover
from marslora.models.probe import probe
from marslora.testing.solo import on_peft
from tests.helpers import tiny_models

LEFT_PADDED = ("llava", "qwen2_audio")
"""Models whose first row is padded on the left: their batches begin with tokens of text."""


def tiny_base(name="llava", dtype=torch.float32, experts=False, **training):
    """A tiny model as a base, dead layers left out, and one collated batch.

    Learning rates of twins are powers of two: a pack keeps its rates in float32, which holds those exactly.
    """
    model, batch = tiny_models.build(name)
    if name == "gemma3":  # its projector starts at zero: no gradient would reach the tower
        projection = model.model.multi_modal_projector.mm_input_projection_weight
        torch.nn.init.normal_(projection, std=0.1, generator=torch.Generator().manual_seed(0))
    if name in LEFT_PADDED:  # a lost mask would let these tokens be seen
        batch["attention_mask"][0, :2] = 0
        batch["labels"][0, :2] = -100
    model.to(dtype)
    batch = {key: value.to(dtype) if value.is_floating_point() else value for key, value in batch.items()}
    if name == "qwen3_vl_moe" and dtype == torch.float64:  # the grouped product of its experts has no float64
        model.set_experts_implementation("eager")
    model.requires_grad_(False)
    info = probe(model, batch, discover(model, experts=experts))
    spec = TrainingSpec(**{"batch_size": 2, "learning_rate": 2**-9, **training})
    return Base(model, info, spec, torch.device("cpu"), dtype, AnswerHead(model)), batch


def member(base, rank, **fields):
    """A member with this rank in every part, or these ranks by part."""
    ranks = rank if isinstance(rank, dict) else {part.name: rank for part in base.info.parts}
    fields = {"id": f"r{rank}", "data_examples": 100, "until_examples": 100, **fields}
    return MemberSpec(allocation=Allocation.of(ranks), **fields)


def varied(batch, count, accumulation=1):
    """Steps of micro-batches that differ in their pictures and answers."""
    steps = []
    for step in range(count):
        micro = []
        for piece in range(accumulation):
            generator = torch.Generator().manual_seed(1000 * step + piece)
            new = dict(batch)
            for name, value in batch.items():
                if value.is_floating_point():
                    new[name] = value + 0.3 * torch.randn(value.shape, generator=generator)
            labels = batch["labels"].clone()
            hidden = torch.rand(labels.shape, generator=generator) < 0.3
            hidden[:, -1] = False
            new["labels"] = labels.masked_fill(hidden, -100)
            micro.append(new)
        steps.append(micro)
    return steps


def train_packed(base, specs, steps, total=100, pack_hook=None):
    """Weights of every member and the losses of every step, trained together."""
    total_steps = num_steps(total, 1)
    losses = []
    with Pack(base, [Member(spec) for spec in specs]) as pack:
        alive = torch.ones(len(specs), dtype=torch.bool)
        for step, batches in enumerate(steps):
            pack.position.step = step
            pack.set_rates(step, total_steps)
            if pack_hook:
                pack_hook(pack, step)
            result = train_step(pack, [base.batch(batch) for batch in batches], alive)
            alive &= result.is_finite_K
            losses.append(result.loss_K)
        return [found.weights for found in pack.copy_members(len(steps))], torch.stack(losses)


def train_alone(base, spec, steps, total=100):
    """Weights and losses of a member trained by PEFT."""
    with on_peft(base, spec) as solo:
        solo.train(steps, num_steps(total, 1))
        return solo.weights(), torch.tensor(solo.losses, dtype=torch.float64)


def packed_gradients(base, specs, *batches):
    """Weights (all of them random) and gradients of every member for micro-batches, losses summed over tokens."""
    with Pack(base, [Member(spec) for spec in specs]) as pack:
        for _, adapter, factor in pack.factors():
            for index, spec in enumerate(specs):
                view = adapter.member_view(factor, index)
                noise = torch.randn(view.shape, generator=torch.Generator().manual_seed(spec.seed))
                view.add_(0.2 * noise / max(1, view.shape[-1]) ** 0.5)
        weights = [found.weights for found in pack.copy_members(0)]
        pack.position.training = True
        for pack.position.micro_step, batch in enumerate(batches):
            pack.nats(base.batch(batch)).sum().backward()
        gradients = [{} for _ in specs]
        for _, adapter, factor in pack.factors():
            grad = torch.zeros_like(factor.parameter) if factor.parameter.grad is None else factor.parameter.grad
            for index in range(len(specs)):
                view = adapter.member_view(factor, index)
                own = grad[index][tuple(slice(size) for size in view.shape)]
                gradients[index][f"{adapter.path}.{factor.key}"] = adapter.to_peft(factor, own).clone()
        return weights, gradients


def alone_gradients(base, spec, weights, *batches):
    """PEFT's gradients for these weights."""
    with on_peft(base, spec) as solo:
        for key, _, parameter in solo.trained():
            parameter.data.copy_(weights[key])
        solo.position.training = True
        for solo.position.micro_step, batch in enumerate(batches):
            with base.mixed_precision():
                loss = solo.loss(batch)
            loss.backward()
        return {
            key: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
            for key, _, parameter in solo.trained()
        }


def with_losses(weights, losses_T):
    """A member's tensors by name, with the losses of its steps."""
    return weights | {"losses": losses_T.double()}


def trained_twice(base, specs, steps):
    """What every member came to, its losses included: in a pack, and on PEFT alone."""
    together, losses_TK = train_packed(base, specs, steps)
    packed = [with_losses(weights, losses_TK[:, k]) for k, weights in enumerate(together)]
    return packed, [with_losses(*train_alone(base, spec, steps)) for spec in specs]
