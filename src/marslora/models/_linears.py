"""Which layers LoRA can adapt, and their sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D

EXPERTS = re.compile(r"(^|\.)experts(\.|$)")
"""The module paths that `transformers` gives mixtures of experts."""


def linears(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(path, module) of every `nn.Linear` and of every `Conv1D` (GPT-2's linear)."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D))


def stacked(model: nn.Module) -> Iterator[tuple[str, int, int, int]]:
    """(path, experts, inputs, outputs) of every parameter in which the weights of several experts are stacked."""
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 3 and EXPERTS.search(path) and parameter.shape[0] > 1:
                experts, first, second = parameter.shape
                sizes = (first, second) if getattr(module, "is_transposed", False) else (second, first)
                yield f"{path}.{name}", experts, *sizes


def is_adaptable(module: nn.Module) -> bool:
    """Whether the layer is called: `nn.MultiheadAttention` only reads the weight of its output layer."""
    return not isinstance(module, NonDynamicallyQuantizableLinear)
