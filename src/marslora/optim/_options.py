"""The options of every optimizer, and the signature of a constructor that takes them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from typing import Any

from marslora.core.plugin_options import PluginConfig


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(PluginConfig):
    """Options of every optimizer. Each is also a number of the parameter groups, where it can be scheduled."""

    lr: Any = 1e-3
    """Learning rate: one number, or one for each member."""
    weight_decay: Any = 0.0
    """Decoupled, ``x (1 - lr wd)``: one number, or one for each member."""
    b_ratio: float = 1.0
    """How many times faster role B learns (LoRA+, arXiv 2402.12354)."""

    def group_numbers(self) -> dict[str, Any]:
        """The defaults of a parameter group."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def build_signature(config: type[OptimizerConfig]) -> inspect.Signature:
    """``(params, lr, *, option=default, ...)``: what `help` shows of a constructor that takes these options."""
    positional, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(field.name, positional if field.name == "lr" else keyword, default=field.default)
        for field in fields(config)
    ]
    return inspect.Signature([inspect.Parameter("params", positional), *options])
