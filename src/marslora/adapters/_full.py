"""Training a module whole: every member has a copy of its parameters. The setting ``full`` names the parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from transformers.pytorch_utils import Conv1D

from marslora.adapters._base import AbstractAdapter, Factor, MemberSettings, TrainingPosition, factor_dtype
from marslora.adapters._by_member import run_members
from marslora.core.errors import ConfigError
from marslora.core.linears import is_quantized


def build_whole_module(
    base: nn.Module, path: str, members: Sequence[MemberSettings], position: TrainingPosition
) -> AbstractAdapter:
    """Make K trained copies of a module. Copies of a linear run as one batched product, others one after the other.

    Raises `ConfigError` for a quantised linear: a step of training is smaller than the distance of its levels.
    """
    if quantized := [name for name, each in base.named_modules() if isinstance(each, nn.Linear) and is_quantized(each)]:
        raise ConfigError(
            f"`full` cannot train `{'.'.join(filter(None, (path, quantized[0])))}` whole, because it is quantised. "
            "Train its part by LoRA, or load the model without `quantize`."
        )
    layer_class = WholeLinear if isinstance(base, nn.Linear | Conv1D) else WholeModule
    return layer_class(base, path, members, position)


class WholeLinear(AbstractAdapter):
    """K copies of a linear, each starting as the frozen one. PEFT stores them as ``modules_to_save``."""

    def __init__(self, base: nn.Module, path: str, members: Sequence[MemberSettings], position: TrainingPosition):
        super().__init__(base, path, members, position)
        copies = {
            name: Parameter(_copies(tensor.to(factor_dtype(base)), len(members)))
            for name, tensor in base.named_parameters()
        }
        self.weight_K = copies["weight"]
        self.bias_KO = copies.get("bias")
        self.transposed = isinstance(base, nn.Linear)  # Conv1D keeps its weight as (inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Run each member's linear on its chunk."""
        x_KNI = x.reshape(self.num_members, -1, x.shape[-1])
        if not torch.is_autocast_enabled(x.device.type):
            x_KNI = x_KNI.to(self.weight_K.dtype)
        weight_KIO = self.weight_K.mT if self.transposed else self.weight_K
        if self.bias_KO is None:
            y_KNO = torch.bmm(x_KNI, weight_KIO)
        else:
            y_KNO = torch.baddbmm(self.bias_KO.unsqueeze(1), x_KNI, weight_KIO)
        return y_KNO.to(x.dtype).view(*x.shape[:-1], -1)

    def owns(self, member: int) -> bool:  # noqa: ARG002
        """Return True: every member has a copy, whatever its ranks."""
        return True

    def factors(self) -> tuple[Factor, ...]:
        """Return the weight, and the bias if there is one."""
        weight = Factor("weight", "weight", "full", self.weight_K)
        return (weight,) if self.bias_KO is None else (weight, Factor("bias", "bias", "full", self.bias_KO))


class WholeModule(AbstractAdapter):
    """K copies of a module that is not a linear, e.g. a projector that is a bare parameter (Gemma 3)."""

    def __init__(self, base: nn.Module, path: str, members: Sequence[MemberSettings], position: TrainingPosition):
        super().__init__(base, path, members, position)
        self.names = tuple(name for name, _ in base.named_parameters())
        self.copies = nn.ParameterList(
            Parameter(_copies(tensor.to(factor_dtype(base)), len(members))) for tensor in base.parameters()
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run each member's copy on its chunk of every tensor argument."""
        copies_K = [{name: copy[k] for name, copy in self._named()} for k in range(self.num_members)]
        return run_members(self.base, copies_K, args, kwargs)

    def owns(self, member: int) -> bool:  # noqa: ARG002
        """Return True: every member has a copy, whatever its ranks."""
        return True

    def factors(self) -> tuple[Factor, ...]:
        """Return every parameter of the module."""
        return tuple(Factor(name, name, "full", copy) for name, copy in self._named())

    def _named(self) -> Iterator[tuple[str, Parameter]]:
        return zip(self.names, self.copies, strict=True)


def _copies(tensor: Tensor, members: int) -> Tensor:
    return tensor.detach().unsqueeze(0).repeat(members, *(1,) * tensor.ndim)
