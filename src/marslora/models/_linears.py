"""Which layers LoRA can adapt, and their sizes."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D


def is_adaptable(module: nn.Module) -> bool:
    """True for `nn.Linear` and GPT-2's `Conv1D`.

    Not for the output layer inside `nn.MultiheadAttention`: its weight is used without calling the layer.
    """
    return isinstance(module, nn.Linear | Conv1D) and not isinstance(module, NonDynamicallyQuantizableLinear)


def sizes(module: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of an adaptable layer."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    assert isinstance(module, Conv1D)
    inputs, outputs = module.weight.shape  # Conv1D keeps its weight transposed
    return int(inputs), int(outputs)
