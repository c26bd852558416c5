"""Whether a model keeps the chunks of a repeated batch apart: what packing rests on, tried before it is relied on."""

from __future__ import annotations

import torch
from torch import Tensor

from marslora.core.spec import MemberSpec
from marslora.engine.pack import Base, Member, Pack
from marslora.models.answers import Batch

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-7}
HALF_TOLERANCE = 3e-2


@torch.no_grad()
def keeps_members_apart(base: Base, members: tuple[MemberSpec, ...], batch: Batch) -> bool:
    """True if two members with different weights get in one pack the losses they get alone.

    False for a model that, say, runs its projector once for every image: its calls do not see all members' rows.
    """
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
    """The losses of members whose every trained tensor is random, so that nothing is hidden by zeros."""
    with Pack(base, [Member(member) for member in members]) as pack:
        for _, adapter, factor in pack.factors():
            for index, member in enumerate(members):
                view = adapter.member_view(factor, index)
                generator = torch.Generator().manual_seed(member.seed)
                noise = torch.randn(view.shape, generator=generator).to(view.device)
                view.add_(noise * 0.5 / max(1, view.shape[-1]) ** 0.5)
        return pack.token_sums(batch).nats_K
