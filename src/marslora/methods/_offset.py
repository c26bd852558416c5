"""LoRA that starts at given factors and adds only what training changes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from marslora.core.seeds import derive
from marslora.methods._base import AdapterPlan, LowRank
from marslora.methods._context import BatchContext
from marslora.methods._layers import AdaptedModel
from marslora.methods._mixture import MixtureLinear, cast_like


class OffsetLinear(MixtureLinear):
    """``y = W x + s (B A x - B_0 A_0 x)``, where A and B start at A_0 and B_0.

    Methods that start at a B other than 0 usually subtract ``s B_0 A_0`` from W. Here it is a separate term, so that W
    is neither changed (other runs may share the model) nor rounded again.
    """

    def __init__(
        self, base: nn.Module, path: str, context: BatchContext, plan: AdapterPlan, start: tuple[Tensor, Tensor] | None
    ):
        super().__init__(base, path, context, plan)
        A_RI, B_OR = self.lora_A[0], self.lora_B[0]
        if start is not None:
            A_RI.data.copy_(start[0])
            B_OR.data.copy_(start[1])
        self.register_buffer("A_start_RI", A_RI.detach().clone())
        self.register_buffer("B_start_OR", B_OR.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return the linear's output plus what training has changed."""
        y = super().forward(x)
        if not self.context.enabled:
            return y
        A_RI, B_OR = self.get_buffer("A_start_RI"), self.get_buffer("B_start_OR")
        return y - (self.scale * linear(linear(cast_like(x, A_RI), A_RI), B_OR)).to(y.dtype)

    def low_rank(self, task: str | None = None) -> LowRank:
        """Return a change of twice the rank: the trained factors, and the initial ones with a minus sign."""
        trained = super().low_rank(task)
        A_RI, B_OR = self.get_buffer("A_start_RI"), self.get_buffer("B_start_OR")
        return LowRank(torch.cat([trained.A_RI, A_RI]), torch.cat([trained.B_OR, -B_OR], dim=1), trained.scale)


class OffsetModel(AdaptedModel):
    """A model with `OffsetLinear` layers."""

    def save(self, folder: Path) -> None:
        """Write a plain LoRA folder for PEFT, of twice the rank."""
        self.save_plain(folder)

    def extra_state(self) -> dict[str, Tensor]:
        """Return the factors at which training started."""
        return {
            f"{path}.{name}": layer.get_buffer(name)
            for path, layer in self.layers.items()
            if isinstance(layer, OffsetLinear)
            for name in ("A_start_RI", "B_start_OR")
        }

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `extra_state` returned."""
        for key, buffer in self.extra_state().items():
            buffer.copy_(state[key])


def build_offset_model(
    model: nn.Module, plan: AdapterPlan, settings: Mapping[str, Any], without_start: frozenset[str] = frozenset()
) -> OffsetModel:
    """Adapt every linear of the plan, starting at the factors that PEFT computes with these settings of `LoraConfig`.

    Linears in ``without_start`` start as plain LoRA.
    """
    change = OffsetModel(model, plan, BatchContext(model))
    for path in plan.ranks:
        start = None if path in without_start else _start(model.get_submodule(path), path, plan, settings)
        change.insert_layer(path, functools.partial(OffsetLinear, plan=plan, start=start))
    change.inject_whole_modules()
    return change


def _start(base: nn.Module, path: str, plan: AdapterPlan, settings: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the initial (A, B) that PEFT computes, from a copy of one linear."""
    rank, is_conv = plan.ranks[path], isinstance(base, Conv1D)
    config = LoraConfig(r=rank, lora_alpha=plan.scale * rank, fan_in_fan_out=is_conv, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(derive(plan.seed, path, "start"))
        layer = Linear(
            copy.deepcopy(base),
            "default",
            config,
            r=rank,
            lora_alpha=plan.scale * rank,
            is_target_conv_1d_layer=is_conv,
        )
    return layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()
