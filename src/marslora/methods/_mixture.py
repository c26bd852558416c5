"""Low-rank changes with several heads: the one configurable family behind AsymLoRA, HydraLoRA, LoRA-MoE and others.

``y = W x + s sum_i w_i(x) B_i A_i x``, where the A_i may be one, and the weights w_i come from a label of the token
or from a learned router. Because the weights act on vectors of the rank's length, all heads cost two products of the
inner size N r: with one head this is LoRA.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.functional import linear

from marslora.adapters import factor_dtype, member_generator
from marslora.core.errors import ConfigError
from marslora.methods._base import AdapterPlan, LowRank
from marslora.methods._context import BatchContext
from marslora.methods._layers import AbstractAdapterLayer, sizes
from marslora.methods._router import Router


class WeightSource(Protocol):
    """Where the weights of the heads come from."""

    def weights(self, x: Tensor) -> Tensor:
        """(..., N), the leading dimensions broadcastable to those of x."""


class MixtureLinear(AbstractAdapterLayer):
    """One linear with N heads. Parameters: ``lora_A`` (or ``lora_A.i``) (R, I), ``lora_B.i`` (O, R), the router's."""

    def __init__(
        self,
        base: nn.Module,
        path: str,
        context: BatchContext,
        plan: AdapterPlan,
        *,
        heads: int = 1,
        shared_a: bool = True,
    ):
        super().__init__(base, path, context)
        inputs, outputs = sizes(base)
        rank, device, dtype = plan.ranks[path], next(base.parameters()).device, factor_dtype(base)
        self.heads, self.rank, self.scale = heads, rank, plan.scale
        self.lora_A = nn.ParameterList(
            Parameter(draw_a(rank, inputs, plan.seed, path, "lora_A" if i == 0 else f"lora_A.{i}").to(device, dtype))
            for i in range(1 if shared_a else heads)
        )
        self.lora_B = nn.ParameterList(
            Parameter(torch.zeros(outputs, rank, device=device, dtype=dtype)) for _ in range(heads)
        )
        self.lora_dropout = nn.Dropout(plan.dropout)
        self.router: Router | None = None
        self.source: WeightSource | None = None
        self.by: Literal["task", "modality", "router"] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The linear's output and the heads' weighted sum; dropout has one mask for all heads."""
        y: Tensor = self.base(x)
        if not self.context.enabled:
            return y
        A_SI = torch.cat(list(self.lora_A))
        h_TS = linear(self.lora_dropout(cast_like(x, A_SI)), A_SI)
        h_TAR = h_TS.view(*h_TS.shape[:-1], len(self.lora_A), self.rank)
        if self.source is not None:
            weight_TN = self.source.weights(x)
            h_TAR = h_TAR * weight_TN.unsqueeze(-1).to(h_TAR.dtype)
        added = linear(h_TAR.flatten(-2), torch.cat(list(self.lora_B), dim=-1))
        return y + (self.scale * added).to(y.dtype)

    def roles(self) -> Iterator[tuple[str, str, Parameter]]:
        """A, B and router."""
        yield from (("lora_A" if i == 0 else f"lora_A.{i}", "A", one) for i, one in enumerate(self.lora_A))
        yield from ((f"lora_B.{i}", "B", one) for i, one in enumerate(self.lora_B))
        if self.router is not None:
            yield from ((f"router.{name}", "router", one) for name, one in self.router.named_parameters())

    def low_rank(self, task: str | None = None) -> LowRank:
        """The one head's change, or that of a task."""
        place = 0
        if self.source is not None:
            if self.by != "task" or task not in self.context.tasks:
                raise ConfigError(
                    f"`{self.path}` has {self.heads} heads whose weights depend on the token: no one weight matrix "
                    "does the same. The model must be run with its adapter."
                )
            place = self.context.tasks.index(task)
        A_RI = self.lora_A[place if len(self.lora_A) > 1 else 0]
        return LowRank(A_RI.detach(), self.lora_B[place].detach(), self.scale)


def draw_a(rank: int, inputs: int, seed: int, path: str, name: str) -> Tensor:
    """A as PEFT draws it (Kaiming uniform, a = sqrt 5), from the stream that a run of this seed has for a module."""
    A_RI = torch.empty(rank, inputs)
    return nn.init.kaiming_uniform_(A_RI, a=math.sqrt(5), generator=member_generator(seed, path, name))


def cast_like(x: Tensor, like: Tensor) -> Tensor:
    """x in the dtype of a parameter, unless autocast chooses."""
    return x if torch.is_autocast_enabled(x.device.type) else x.to(like.dtype)
