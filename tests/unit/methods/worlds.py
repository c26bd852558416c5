"""A tiny LLaVA to change, and plans for it."""

import torch

from marslora.core.allocation import Allocation
from marslora.methods import AdapterPlan
from marslora.models.discovery import discover
from marslora.models.probe import probe
from tests.helpers.tiny_models import build


def world(name="llava", *, probed=False, **ranks):
    """A frozen tiny model, its batch, a plan for it, and its linears' sizes; ``probed``: rank 2 for all that learns."""
    model, batch = build(name)
    model.requires_grad_(False)
    info = discover(model)
    if probed:
        info = probe(model, batch, info)
        ranks = {part.name: 2 for part in info.parts if part.alive}
    ranks = info.module_ranks(Allocation.of(**(ranks or {"vision": 2, "projector": 3, "language": 4})))
    part_of = info.part_of()
    sizes = {linear.name: (linear.inputs, linear.outputs) for part in info.parts for linear in part.linears}
    plan = AdapterPlan(ranks=ranks, parts={path: part_of[path] for path in ranks}, num_steps=20, tasks=("a", "b"))
    return model, batch, plan, sizes


def with_tasks(batch, *places):
    """The batch, its rows (of one picture each) being of these tasks."""
    return {**batch, "task_of_row": torch.tensor(places), "task_of_unit": torch.tensor(places)}


def randomise(change, seed=0, std=0.1, roles=("B",)):
    """Draw the parameters of some roles, which may begin at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for one in change.trainables():
            if one.role in roles:
                one.parameter.copy_(torch.randn(one.parameter.shape, generator=generator) * std)


def logits(change, batch):
    with torch.no_grad():
        return change.model(**batch).logits
