"""Dropout masks as a function of (member seed, module, step, micro-step): no hidden state to lose or to share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from marslora.adapters._base import Clock, Slot
from marslora.core.seeds import derive


def drop(x_KNI: Tensor, slots: Sequence[Slot], path: str, clock: Clock) -> Tensor:
    """``x`` with each member's own mask on its chunk; ``x`` itself where nobody drops anything.

    Masks are float32 whatever the dtype of ``x``: drawn in half precision they would be others, and larger by what
    rounding does to ``1 / (1 - dropout)``.
    """
    if not clock.training or not any(slot.dropout and slot.rank for slot in slots):
        return x_KNI
    mask_KNI = torch.ones_like(x_KNI, dtype=torch.float32)
    for mask_NI, slot in zip(mask_KNI, slots, strict=True):
        if slot.dropout and slot.rank:
            seed = derive(slot.seed, "dropout", path, clock.step, clock.micro_step)
            generator = torch.Generator(x_KNI.device).manual_seed(seed)
            mask_NI.bernoulli_(1 - slot.dropout, generator=generator).div_(1 - slot.dropout)
    return (x_KNI * mask_KNI).to(x_KNI.dtype)


class SeededDropout(nn.Module):
    """The same masks for one member alone: takes the place of PEFT's ``lora_dropout``."""

    def __init__(self, slot: Slot, path: str, clock: Clock):
        super().__init__()
        self.slot, self.path, self.clock = slot, path, clock

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with the member's mask."""
        return drop(x.reshape(1, -1, x.shape[-1]), (self.slot,), self.path, self.clock).reshape(x.shape)
