"""Dropout masks as a function of member seed, module, step and micro-step, so that there is no hidden state to save."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from marslora.adapters._base import MemberSettings, TrainingPosition
from marslora.core.seeds import derive


def drop(x_KNI: Tensor, members: Sequence[MemberSettings], path: str, position: TrainingPosition) -> Tensor:
    """Return ``x`` with each member's mask on its chunk, or ``x`` itself if no member uses dropout.

    Masks are float32 whatever the dtype of ``x``: half precision would draw different masks and round
    ``1 / (1 - dropout)``.
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
    """The same masks for a single member. It replaces ``lora_dropout`` of PEFT."""

    def __init__(self, member: MemberSettings, path: str, position: TrainingPosition):
        super().__init__()
        self.member, self.path, self.position = member, path, position

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with the member's mask."""
        return drop(x.reshape(1, -1, x.shape[-1]), (self.member,), self.path, self.position).reshape(x.shape)
