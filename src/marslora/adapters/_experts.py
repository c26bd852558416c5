"""LoRA on stacked experts (``target_parameters`` of PEFT), K members at once. It is part of `lora`, not a plugin.

A mixture-of-experts layer keeps the weights of its E experts in parameters of three dimensions. In each of these, every
expert gets an A and a B of the part's rank. A member runs the layer on its chunk with ``W_e + scale B_e A_e``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from marslora.adapters._base import (
    AbstractAdapter,
    Factor,
    MemberSettings,
    TrainingPosition,
    factor_dtype,
    member_generator,
)
from marslora.adapters._by_member import run_members


class ExpertLora(AbstractAdapter):
    """Replaces a whole module of experts. Its factors are A (K, E, R, I) and B (K, E, O, R) of each parameter."""

    def __init__(
        self,
        base: nn.Module,
        path: str,
        names: Sequence[str],
        members: Sequence[MemberSettings],
        position: TrainingPosition,
    ):
        super().__init__(base, path, members, position)
        adapted = [name for name, _ in base.named_parameters(recurse=False) if name in set(names)]
        self.names = {name: "base_layer." * (len(adapted) - 1 - index) for index, name in enumerate(adapted)}
        """The prefix of the factors by parameter, in the order in which PEFT wraps the parameters in one another."""
        self.is_transposed = bool(getattr(base, "is_transposed", False))
        self.A = nn.ParameterDict({name: self._draw(name) for name in adapted})
        self.B = nn.ParameterDict({name: self._zeros(name) for name in adapted})

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run each member's experts on its chunk of tokens, with the routing of that chunk."""
        joined: Tensor = run_members(self.base, [self._weights(k) for k in range(self.num_members)], args, kwargs)
        return joined

    def factors(self) -> tuple[Factor, ...]:
        """Return A and B of every parameter, under the names that PEFT's nested wrappers give them."""
        return tuple(
            Factor(f"{prefix}lora_{role}", f"{prefix}lora_{role}.weight", role, factors[name])
            for name, prefix in self.names.items()
            for role, factors in (("A", self.A), ("B", self.B))
        )

    def to_peft(self, factor: Factor, tensor: Tensor) -> Tensor:
        """Reshape A from (E, r, I) to (E r, I), and B from (E, O, r) to (O, r E)."""
        if factor.role == "A":
            return tensor.reshape(-1, tensor.shape[-1])
        return tensor.permute(1, 2, 0).reshape(tensor.shape[1], -1)

    def from_peft(self, factor: Factor, tensor: Tensor) -> Tensor:
        """Reshape A from (E r, I) to (E, r, I), and B from (O, r E) to (E, O, r)."""
        experts = factor.parameter.shape[1]
        if factor.role == "A":
            return tensor.reshape(experts, -1, tensor.shape[-1])
        return tensor.reshape(tensor.shape[0], -1, experts).permute(2, 0, 1)

    def _weights(self, k: int) -> dict[str, Tensor]:
        """Return a member's weights by parameter, in the dtype of the module, as in PEFT."""
        weights: dict[str, Tensor] = {}
        for name in self.names:
            weight = self.base.get_parameter(name)
            if not self.owns(k):
                weights[name] = weight
                continue
            A_ERI, B_EOR = (factors[name][k].to(weight.dtype) for factors in (self.A, self.B))
            first, second = (A_ERI.mT, B_EOR.mT) if self.is_transposed else (B_EOR, A_ERI)
            weights[name] = torch.baddbmm(weight, first, second, alpha=self.members[k].scale)
        return weights

    def _sizes(self, name: str) -> tuple[int, int, int]:
        """Return (experts, inputs, outputs) of a parameter."""
        experts, first, second = self.base.get_parameter(name).shape
        return (experts, first, second) if self.is_transposed else (experts, second, first)

    def _draw(self, name: str) -> Parameter:
        experts, inputs, _ = self._sizes(name)
        A_KERI = torch.zeros(self.num_members, experts, max(self.ranks), inputs)
        path = f"{self.path}.{self.names[name]}".removesuffix(".")
        for A_ERI, member in zip(A_KERI, self.members, strict=True):
            if member.rank:
                drawn = torch.empty(experts * member.rank, inputs)
                nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=member_generator(member.seed, path, "lora_A"))
                A_ERI[:, : member.rank] = drawn.view(experts, member.rank, inputs)
        return Parameter(A_KERI.to(self.base.get_parameter(name).device, factor_dtype(self.base)))

    def _zeros(self, name: str) -> Parameter:
        experts, _, outputs = self._sizes(name)
        device, dtype = self.base.get_parameter(name).device, factor_dtype(self.base)
        return Parameter(torch.zeros(self.num_members, experts, outputs, max(self.ranks), device=device, dtype=dtype))
