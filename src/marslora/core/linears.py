"""The sizes of linears, read without importing torch."""

from __future__ import annotations

from typing import Any


def read_linear_sizes(linear: Any) -> tuple[int, int]:
    """Return (inputs, outputs) of an `nn.Linear`, or of GPT-2's `Conv1D`, which keeps its weight transposed."""
    if hasattr(linear, "in_features"):
        return int(linear.in_features), int(linear.out_features)
    inputs, outputs = linear.weight.shape
    return int(inputs), int(outputs)
