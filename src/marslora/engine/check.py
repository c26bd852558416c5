"""Check that a model computes the members of a pack independently, before packing relies on it.

A pack repeats its batch once for each member and lays the copies end to end. Most models treat the rows of a batch
independently. A few do not, e.g. one that runs its projector once for every image; these train one member at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marslora.core.spec import MemberSpec
from marslora.engine.pack import Base, Member, Pack
from marslora.models.answers import Batch

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-7}
"""Largest relative difference between two losses of one member that still counts as rounding; far below the effect of
another member's weights, which the check makes large."""
HALF_TOLERANCE = 3e-2
"""The same in half precision, where a unit of rounding is 2^-8 (bfloat16). A loss is a sum over many tokens, so errors
average out: it may differ less than single features (`marslora.engine.towers.HALF_TOLERANCE`)."""


@torch.no_grad()
def keeps_members_apart(base: Base, members: tuple[MemberSpec, ...], batch: Batch) -> bool:
    """Whether two members with different weights get the same losses in one pack as each alone in a pack of one."""
    first = max(members, key=lambda member: sum(rank for _, rank in member.allocation.ranks))
    pair = [first.model_copy(update={"seed": seed}) for seed in (1, 2)]
    try:
        together = _losses(base, pair, batch)
        alone = torch.cat([_losses(base, [member], batch) for member in pair])
    except RuntimeError as error:
        if "invalid for input of size" in str(error) or "view size" in str(error):
            return False
        raise
    tolerance = TOLERANCE.get(base.dtype, HALF_TOLERANCE)
    return torch.allclose(together, alone, rtol=tolerance, atol=0) or not bool(alone.isfinite().all())


def _losses(base: Base, members: list[MemberSpec], batch: Batch) -> Tensor:
    """(K,) losses of members whose trained tensors are all random, so that no factor of zeros hides a difference."""
    with Pack(base, [Member(member) for member in members]) as pack:
        for _, adapter, factor in pack.factors():
            for index, member in enumerate(members):
                view = adapter.member_view(factor, index)
                generator = torch.Generator().manual_seed(member.seed)
                noise = torch.randn(view.shape, generator=generator).to(view.device)
                view.add_(noise * 0.5 / max(1, view.shape[-1]) ** 0.5)
        return pack.nats(batch)
