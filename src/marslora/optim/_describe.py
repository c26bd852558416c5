"""A table of what an optimizer does with which parameters."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from marslora.optim._groups import num_members
from marslora.optim._stacks import member_values

if TYPE_CHECKING:
    from marslora.optim._base import AbstractOptimizer

HEADER = ("part", "role", "rule", "tensors", "numbers", "state per number", "lr", "weight decay", "shapes")


def describe(optimizer: AbstractOptimizer) -> str:
    """One line per group and rule: how many tensors and numbers, which rule moves them, at which learning rate."""
    rows = [HEADER]
    for group in optimizer.param_groups:
        for rule, count in Counter(optimizer.rule(param, group) for param in group["params"]).items():
            params = [param for param in group["params"] if optimizer.rule(param, group) == rule]
            shapes = Counter("x".join(map(str, param.shape)) for param in params)
            rows.append(
                (
                    group["part"] or "-",
                    group["role"],
                    rule,
                    str(count),
                    f"{sum(param.numel() for param in params):,}",
                    str(len(optimizer.rule_buffers(rule, group))),
                    _format_range(group["lr"], group, group["b_ratio"] if group["role"] == "B" else 1.0),
                    _format_range(group["weight_decay"], group, 1.0),
                    ", ".join(f"{times} of {shape}" for shape, times in shapes.most_common(3)),
                )
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _format_range(value: Any, group: dict[str, Any], factor: float) -> str:
    values = (member_values(value, num_members(group)) * factor).tolist()
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
