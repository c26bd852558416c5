"""Build the optimizer that a training specification names."""

from __future__ import annotations

from typing import Any

import torch

from marslora import optim
from marslora.core import plugins
from marslora.core.errors import ConfigError
from marslora.core.spec import PluginSpec, TrainingSpec
from marslora.optim._base import AbstractOptimizer


def create_optimizer(training: TrainingSpec, groups: list[dict[str, Any]]) -> AbstractOptimizer:
    """The optimizer that a training specification names, on these parameter groups.

    Its own options go before the specification's ``weight_decay``. Raises `ConfigError` for a name that is not an
    optimizer, and for options that it does not have or cannot use.
    """
    return _create(training.optimizer, groups, {"weight_decay": training.weight_decay})


def check_optimizer(spec: PluginSpec) -> None:
    """Raise the `ConfigError` that `create_optimizer` would raise for this name and these options."""
    _create(spec, [{"params": [torch.nn.Parameter(torch.zeros(1, 1))]}], {})


def _create(spec: PluginSpec, groups: list[dict[str, Any]], defaults: dict[str, Any]) -> AbstractOptimizer:
    optimizer_class = plugins.load(optim, spec.name, AbstractOptimizer)
    try:
        return optimizer_class(groups, **{**defaults, **spec.options})
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"`optimizer` {spec.name} cannot have the options {spec.options}: {error}") from error
