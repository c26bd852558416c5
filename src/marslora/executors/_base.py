"""How specs are run somewhere: an executor gets a dotted name and specs, and never knows what it runs."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from marslora.core.errors import ConfigError
from marslora.core.record import Record

Emit = Callable[[Any], None]
Work = Callable[[Any, Emit], None]


class AbstractExecutor(ABC):
    """Runs every spec once, in any order; events come back through ``emit`` in the calling process."""

    num_workers: int = 1
    """Specs that are run at a time."""

    @abstractmethod
    def run(self, work: str, specs: Sequence[Record], emit: Emit) -> None:
        """Call the function named ``package.module:function`` as ``function(spec, emit)`` for each spec."""


def resolve(work: str) -> Work:
    """The function that ``package.module:function`` names, imported where the work runs."""
    module_name, _, function_name = work.partition(":")
    function = getattr(importlib.import_module(module_name), function_name, None)
    if function is None:
        raise ConfigError(f"`{work}` names no function. Write `package.module:function`.")
    resolved: Work = function
    return resolved
