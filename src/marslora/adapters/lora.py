"""LoRA: a frozen linear plus a low-rank product (Hu et al. 2022, arXiv 2106.09685), K members at once.

Member k adds ``scale_k B_k A_k drop(x)``. Ranks are padded with zeros to the largest. The gradient of the padding is
zero (rows of A meet zero columns of B, and the other way round), and therefore it stays zero.

``use_rslora`` and ``use_dora`` mean what they mean in `peft.LoraConfig`: scales that fall with the square root of the
rank (Kalajdzievski 2023, arXiv 2312.03732; the scale is part of `MemberSettings`), and trained row lengths (`_dora`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from marslora.adapters._base import (
    AbstractAdapter,
    Factor,
    MemberSettings,
    TrainingPosition,
    factor_dtype,
    member_generator,
)
from marslora.adapters._dora import row_lengths, weight_OI
from marslora.adapters._dropout import drop
from marslora.adapters._products import add_low_rank
from marslora.core.errors import ConfigError
from marslora.core.linears import read_linear_sizes

MAGNITUDE = "lora_magnitude_vector"
"""The name PEFT gives to the trained lengths of DoRA."""


class Lora(AbstractAdapter):
    """A is drawn as in PEFT (Kaiming uniform, a = sqrt 5) from the member's random stream, and B starts at zero."""

    merges = "yes"
    trained_by_peft = peft_format = takes_dropout = True
    serves = "any server of LoRA (vLLM up to rank 512, not DoRA); merged, any server"

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractAdapter.Config):
        """The variants of LoRA, as in `peft.LoraConfig`."""

        use_rslora: bool = False
        """Whether scales fall with the square root of the rank (rsLoRA) and not with the rank."""
        use_dora: bool = False
        """Whether the rows of the adapted weight have trained lengths (DoRA)."""

    config: Config

    def __init__(
        self,
        base: nn.Module,
        path: str,
        members: Sequence[MemberSettings],
        position: TrainingPosition,
        **options: Any,
    ):
        super().__init__(base, path, members, position, **options)
        inputs, outputs = read_linear_sizes(base)
        largest = max(self.ranks)
        A_KRI = torch.zeros(len(members), largest, inputs)
        for A_RI, member in zip(A_KRI, members, strict=True):
            if member.rank:
                generator = member_generator(member.seed, path, "lora_A")
                nn.init.kaiming_uniform_(A_RI[: member.rank], a=math.sqrt(5), generator=generator)
        device, dtype = next(base.parameters()).device, factor_dtype(base)
        self.A_KRI = Parameter(A_KRI.to(device, dtype))
        self.B_KOR = Parameter(torch.zeros(len(members), outputs, largest, device=device, dtype=dtype))
        self.scales = tuple(member.scale for member in members)
        self.magnitude_KO = None
        if self.config.use_dora:
            _check_dora(base, path)
            lengths_O = weight_OI(base).to(dtype).norm(dim=-1)
            if not bool(lengths_O.all()):
                raise ConfigError(
                    f"`use_dora` cannot adapt `{path}`: {int((lengths_O == 0).sum())} rows of its weight are zero and "
                    "have no direction. Exclude it with `targets`, or use plain LoRA."
                )
            self.magnitude_KO = Parameter(lengths_O.repeat(len(members), 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the linear plus each member's low-rank product on its chunk."""
        x_KNI = x.reshape(self.num_members, -1, x.shape[-1])
        y_KNO: Tensor = self.base(x_KNI)
        if not torch.is_autocast_enabled(x.device.type):
            x_KNI = x_KNI.to(self.A_KRI.dtype)
        dropped_KNI = drop(x_KNI, self.members, self.path, self.position)
        if self.magnitude_KO is None:
            # A linear of another library may return a view of what its backward needs, as those of bitsandbytes do.
            is_own = type(self.base) in (nn.Linear, Conv1D)
            factors = (self.A_KRI, self.B_KOR, self.ranks, self.scales)
            y_KNO = add_low_rank(y_KNO, dropped_KNI, *factors, overwrite=is_own)
        else:
            y_KNO = self._with_lengths(self.magnitude_KO, y_KNO, dropped_KNI, is_dropped=dropped_KNI is not x_KNI)
        return y_KNO.view(*x.shape[:-1], y_KNO.shape[-1])

    def _with_lengths(self, magnitude_KO: Tensor, y_KNO: Tensor, x_KNI: Tensor, *, is_dropped: bool) -> Tensor:
        """Return the output of DoRA, given the linear's output ``y``. ``x`` is after dropout; the bias stays."""
        W_OI = weight_OI(self.base)
        lengths_KO = row_lengths(W_OI, self.A_KRI, self.B_KOR, self.scales)
        is_adapted_K1 = torch.tensor([[rank > 0] for rank in self.ranks]).to(lengths_KO.device, non_blocking=True)
        gain_KO = torch.where(is_adapted_K1, magnitude_KO / lengths_KO, 1.0)
        bias_O: Any = self.base.bias
        if is_dropped:
            product_KNO = linear(x_KNI, W_OI.to(x_KNI.dtype)).to(y_KNO.dtype)
        else:
            product_KNO = y_KNO.clone() if bias_O is None else y_KNO - bias_O.to(y_KNO.dtype)
        rest_KNO = y_KNO - product_KNO
        changed_KNO = add_low_rank(product_KNO, x_KNI, self.A_KRI, self.B_KOR, self.ranks, self.scales)
        return rest_KNO + (gain_KO.unsqueeze(1) * changed_KNO).to(y_KNO.dtype)

    def factors(self) -> tuple[Factor, ...]:
        """Return A (K, R, I), B (K, O, R), and with DoRA the magnitudes (K, O)."""
        products = (
            Factor("lora_A", "lora_A.weight", "A", self.A_KRI),
            Factor("lora_B", "lora_B.weight", "B", self.B_KOR),
        )
        if self.magnitude_KO is None:
            return products
        return (*products, Factor(MAGNITUDE, MAGNITUDE, "magnitude", self.magnitude_KO))


def _check_dora(base: nn.Module, path: str) -> None:
    """Refuse what PEFT, which trains the final run, cannot do: it breaks 8-bit layers on a CPU when it reads them."""
    weight: Any = base.weight
    if type(weight).__name__ == "Int8Params" and weight.device.type == "cpu":
        raise ConfigError(
            f"`use_dora` cannot adapt `{path}`: PEFT cannot train DoRA on 8-bit weights on a CPU. Use `quantize` nf4, "
            "plain LoRA, or a GPU."
        )
