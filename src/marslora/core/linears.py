"""The shapes of linears and of their low-rank factors, without importing torch."""

from __future__ import annotations

from typing import Any

RANK_DIMS = {"A": -2, "B": -1}
"""The dimension of the rank in a factor, by its role, as PEFT stores it: A is (rank, inputs), B is (outputs, rank)."""


QUANTIZED = ("Params4bit", "Int8Params")
"""The classes in which bitsandbytes keeps weights that are codes and not numbers."""


def is_quantized(linear: Any) -> bool:
    """Whether the weight of a linear is not plain numbers: one of bitsandbytes, torchao, HQQ, GPTQ or AWQ."""
    weight = getattr(linear, "weight", None)
    if weight is None:
        return True
    kind = type(weight)
    return kind.__name__ in QUANTIZED or kind.__module__.startswith("torchao.") or not weight.is_floating_point()


def read_linear_sizes(linear: Any) -> tuple[int, int]:
    """Return (inputs, outputs) of an `nn.Linear`, or of GPT-2's `Conv1D`, which keeps its weight transposed."""
    if hasattr(linear, "in_features"):
        return int(linear.in_features), int(linear.out_features)
    inputs, outputs = linear.weight.shape
    return int(inputs), int(outputs)
