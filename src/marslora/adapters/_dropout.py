"""Dropout masks as a function of (member seed, module, step, micro-step): no hidden state to lose or to share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from marslora.adapters._base import MemberSettings, TrainingPosition
from marslora.core.seeds import derive


def drop(x_KNI: Tensor, members: Sequence[MemberSettings], path: str, position: TrainingPosition) -> Tensor:
    """``x`` with each member's own mask on its chunk; ``x`` itself where nobody drops anything.

    Masks are float32 whatever the dtype of ``x``: drawn in half precision they would be others, and larger by what
    rounding does to ``1 / (1 - dropout)``.
    """
    if not position.training or not any(member.dropout and member.rank for member in members):
        return x_KNI
    mask_KNI = torch.ones_like(x_KNI, dtype=torch.float32)
    for mask_NI, member in zip(mask_KNI, members, strict=True):
        if member.dropout and member.rank:
            seed = derive(member.seed, "dropout", path, position.step, position.micro_step)
            generator = torch.Generator(x_KNI.device).manual_seed(seed)
            mask_NI.bernoulli_(1 - member.dropout, generator=generator).div_(1 - member.dropout)
    return (x_KNI * mask_KNI).to(x_KNI.dtype)


class SeededDropout(nn.Module):
    """The same masks for one member alone: takes the place of PEFT's ``lora_dropout``."""

    def __init__(self, member: MemberSettings, path: str, position: TrainingPosition):
        super().__init__()
        self.member, self.path, self.position = member, path, position

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with the member's mask."""
        return drop(x.reshape(1, -1, x.shape[-1]), (self.member,), self.path, self.position).reshape(x.shape)
