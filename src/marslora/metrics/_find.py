"""Metrics by name: the folder is the registry; ``package.module:function`` names one from elsewhere."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from marslora import metrics
from marslora.core import plugins
from marslora.core.errors import ConfigError
from marslora.core.record import suggest

LOSS = "loss"
"""The name that stands for no metric: the loss decides, and no answer is generated."""
Metric = Callable[[Sequence[str], Sequence[str]], float]
"""(answers, expected answers) -> one number, of which the larger is the better."""


def find_metric(name: str) -> Metric:
    """The metric called ``name``: a file of this folder, or ``package.module:function``.

    Raises `ConfigError` if there is none, and `MissingDependencyError` if it needs a package that is not installed.
    """
    if ":" in name:
        function: Any = plugins.import_object(name)
    elif name in (known := plugins.names(metrics)):
        function = getattr(importlib.import_module(f"{metrics.__name__}.{name}"), name)
    else:
        raise ConfigError(
            f"`metric` must be {LOSS}, one of {list(known)}, or your own as `package.module:function`, found "
            f"{name!r}.{suggest(name, [LOSS, *known])}"
        )
    if not callable(function):
        raise ConfigError(f"`metric` {name} must be a function of answers and expected answers, found {function!r}.")
    return function  # type: ignore[no-any-return]


def measure(name: str, metric: Metric, predictions: Sequence[str], references: Sequence[str]) -> float:
    """What ``metric``, called ``name``, says of some answers. Raises `ConfigError` unless that is a finite number."""
    try:
        value = metric(predictions, references)
    except Exception as error:  # the function is anyone's
        raise ConfigError(
            f"`metric` {name} failed on {len(predictions)} answers ({type(error).__name__}: {error}). Correct the "
            "function, which gets two lists of texts of equal length."
        ) from error
    if not isinstance(value, Real) or not math.isfinite(value):
        raise ConfigError(f"`metric` {name} must return one finite number, found {value!r}. Correct the function.")
    return float(value)
