"""LoRA: a frozen linear plus a low-rank product (Hu et al. 2022, arXiv 2106.09685), K members at once.

Member k's change is ``scale_k B_k A_k drop(x)``. Ranks are padded with zeros to the largest; padding gets a zero
gradient (rows of A through zero columns of B and the other way round) and therefore stays zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from marslora.adapters._base import AbstractAdapter, Clock, Factor, Slot, factor_dtype, stream
from marslora.adapters._dropout import drop
from marslora.adapters._products import add_low_rank


class Lora(AbstractAdapter):
    """A starts as PEFT draws it (Kaiming uniform, a = sqrt 5), from the member's own stream; B starts at zero."""

    def __init__(self, base: nn.Module, path: str, slots: Sequence[Slot], clock: Clock):
        super().__init__(base, path, slots, clock)
        inputs, outputs = _sizes(base)
        largest = max(self.ranks)
        A_KRI = torch.zeros(len(slots), largest, inputs)
        for A_RI, slot in zip(A_KRI, slots, strict=True):
            if slot.rank:
                generator = stream(slot.seed, path, "lora_A")
                nn.init.kaiming_uniform_(A_RI[: slot.rank], a=math.sqrt(5), generator=generator)
        device, dtype = next(base.parameters()).device, factor_dtype(base)
        self.A_KRI = Parameter(A_KRI.to(device, dtype))
        self.B_KOR = Parameter(torch.zeros(len(slots), outputs, largest, device=device, dtype=dtype))
        self.scales = tuple(slot.scale for slot in slots)

    def forward(self, x: Tensor) -> Tensor:
        """The base's output plus each member's product on its own chunk."""
        x_KNI = x.reshape(self.num_members, -1, x.shape[-1])
        y_KNO: Tensor = self.base(x_KNI)
        if not torch.is_autocast_enabled(x.device.type):
            x_KNI = x_KNI.to(self.A_KRI.dtype)
        x_KNI = drop(x_KNI, self.slots, self.path, self.clock)
        y_KNO = add_low_rank(y_KNO, x_KNI, self.A_KRI, self.B_KOR, self.ranks, self.scales)
        return y_KNO.view(*x.shape[:-1], y_KNO.shape[-1])

    def factors(self) -> tuple[Factor, ...]:
        """A (K, R, I) and B (K, O, R)."""
        return (
            Factor("lora_A", "lora_A.weight", "A", self.A_KRI),
            Factor("lora_B", "lora_B.weight", "B", self.B_KOR),
        )


def _sizes(base: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a linear; GPT-2's Conv1D keeps its weight transposed."""
    if isinstance(base, nn.Linear):
        return base.in_features, base.out_features
    weight = base.get_parameter("weight")
    return weight.shape[0], weight.shape[1]
