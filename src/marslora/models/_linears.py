"""Which layers LoRA can adapt, and their sizes."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D


def linears(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(path, module) of every `nn.Linear` and of every `Conv1D` (GPT-2's linear)."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D))


def is_adaptable(module: nn.Module) -> bool:
    """False for the output layer inside `nn.MultiheadAttention`: its weight is used without calling the layer."""
    return not isinstance(module, NonDynamicallyQuantizableLinear)


def sizes(module: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of an adaptable layer."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    assert isinstance(module, Conv1D)
    inputs, outputs = module.weight.shape  # Conv1D keeps its weight transposed
    return int(inputs), int(outputs)
