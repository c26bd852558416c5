"""A packed adapter from outside the package: LoRA whose product has a trained gain for each member."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import Parameter

from marslora.adapters import AbstractAdapter, Factor, factor_dtype, member_generator
from marslora.adapters.lora import Lora


class GainedLora(AbstractAdapter):
    """``y_k = W x + scale_k gain_k B_k A_k x``, with ``start`` as the first gain."""

    merges = "yes"
    serves = "Python with marslora"

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractAdapter.Config):
        start: float = 1.0

    def __init__(self, base, path, members, position, **options):
        super().__init__(base, path, members, position, **options)
        dtype, largest = factor_dtype(base), max(self.ranks)
        A_KRI = torch.zeros(len(members), largest, base.in_features)
        for A_RI, member in zip(A_KRI, members, strict=True):
            if member.rank:
                generator = member_generator(member.seed, path, "lora_A")
                nn.init.kaiming_uniform_(A_RI[: member.rank], a=math.sqrt(5), generator=generator)
        self.A_KRI = Parameter(A_KRI.to(dtype))
        self.B_KOR = Parameter(torch.zeros(len(members), base.out_features, largest, dtype=dtype))
        self.gain_K1 = Parameter(torch.full((len(members), 1), self.config.start, dtype=dtype))
        self.register_buffer("scale_K1", torch.tensor([[member.scale] for member in members], dtype=dtype))

    def forward(self, x):
        x_KNI = x.reshape(self.num_members, -1, x.shape[-1])
        product_KNO = x_KNI.to(self.A_KRI.dtype) @ self.A_KRI.mT @ self.B_KOR.mT
        y_KNO = self.base(x_KNI)
        change_KNO = (self.scale_K1 * self.gain_K1).unsqueeze(-1) * product_KNO
        return (y_KNO + change_KNO.to(y_KNO.dtype)).view(*x.shape[:-1], -1)

    def factors(self):
        return (
            Factor("lora_A", "lora_A.weight", "A", self.A_KRI),
            Factor("lora_B", "lora_B.weight", "B", self.B_KOR),
            Factor("gain", "gain", "magnitude", self.gain_K1),
        )


NAME = f"{GainedLora.__module__}:{GainedLora.__name__}"


class TwinLora(Lora):
    """LoRA from outside the package, which the final run therefore trains as a pack of one."""

    peft_format = takes_dropout = True


TWIN = f"{TwinLora.__module__}:{TwinLora.__name__}"
