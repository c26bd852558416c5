"""Low-rank changes with several heads: the configurable family behind AsymLoRA, HydraLoRA, LLaVA-MoLE and others.

``y = W x + s sum_i w_i(x) B_i A_i x``, where the A_i may be the same matrix, and the weights w_i come from a label of
the token or from a learned router. Because the weights act on vectors of length r, all N heads together cost two
products with inner size N r. With one head this is LoRA.
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
from marslora.core.linears import read_linear_sizes
from marslora.methods._base import AdapterPlan, LowRank
from marslora.methods._context import BatchContext
from marslora.methods._layers import AbstractAdapterLayer
from marslora.methods._router import Router


class WeightSource(Protocol):
    """Computes the weights of the heads."""

    def weights(self, x: Tensor) -> Tensor:
        """Return the weights (..., N), whose leading dimensions broadcast to those of x."""


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
        inputs, outputs = read_linear_sizes(base)
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
        """Return the linear's output plus the weighted sum of the heads. All heads share one dropout mask."""
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
        """Iterate over A, B and the parameters of the router."""
        yield from (("lora_A" if i == 0 else f"lora_A.{i}", "A", A_RI) for i, A_RI in enumerate(self.lora_A))
        yield from ((f"lora_B.{i}", "B", B_OR) for i, B_OR in enumerate(self.lora_B))
        if self.router is not None:
            yield from ((f"router.{name}", "router", parameter) for name, parameter in self.router.named_parameters())

    def low_rank(self, task: str | None = None) -> LowRank:
        """Return the change of the only head, or that of a task's head."""
        place = 0
        if self.source is not None:
            if self.by != "task" or task not in self.context.tasks:
                raise ConfigError(
                    f"`{self.path}` has {self.heads} heads whose weights depend on the input, which no single weight "
                    "matrix can replace. The model must be run with its adapter (`marslora.attach`)."
                )
            place = self.context.tasks.index(task)
        A_RI = self.lora_A[place if len(self.lora_A) > 1 else 0]
        return LowRank(A_RI.detach(), self.lora_B[place].detach(), self.scale)


def draw_a(rank: int, inputs: int, seed: int, path: str, name: str) -> Tensor:
    """Draw A as PEFT does (Kaiming uniform, a = sqrt 5), from the random stream of this seed and module."""
    A_RI = torch.empty(rank, inputs)
    return nn.init.kaiming_uniform_(A_RI, a=math.sqrt(5), generator=member_generator(seed, path, name))


def cast_like(x: Tensor, like: Tensor) -> Tensor:
    """Return x in the dtype of a parameter, or unchanged if autocast chooses the dtype."""
    return x if torch.is_autocast_enabled(x.device.type) else x.to(like.dtype)
