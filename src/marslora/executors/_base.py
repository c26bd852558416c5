"""The base class of executors: call a function, given by its dotted name, on each spec, and pass its events back.

An executor does not depend on what it runs, so one that submits to a cluster is a single class. It is named on the
command line (``--executor package.module:Class``) or passed to `marslora.search`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from marslora.core.errors import ConfigError
from marslora.core.plugin_options import AbstractPlugin
from marslora.core.record import Record
from marslora.core.runs import Emit, Event, Failure, ProgressEvent, collect_answer, spec_id

Work = Callable[[Any, Emit], None]
"""A function of the training wing, called as ``work(spec, emit)``."""
Answer = TypeVar("Answer", bound=Event)


class AbstractExecutor(AbstractPlugin, ABC):
    """Runs every spec once, in any order; events come back through ``emit`` in the calling process."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractPlugin.Config):
        """The options of an executor."""

    num_workers: int = 1
    """The number of specs that run at the same time."""

    @abstractmethod
    def run(self, work: str, specs: Sequence[Record], emit: Emit) -> None:
        """Call the function named ``package.module:function`` as ``function(spec, emit)`` for each spec.

        A spec that cannot be run is emitted as a `Failure`. A `MarsloraError` that the function raises is raised here.
        """

    def ask(
        self, work: str, spec: Record, kind: type[Answer], advance: Callable[[ProgressEvent], None] | None = None
    ) -> Answer:
        """Run one spec and return the event of type ``kind`` that it ends with; ``advance`` gets its progress.

        Raises the error of a `Failure`, and `StudyError` if the work ends without such an event.
        """
        return collect_answer(lambda emit: self.run_persistently(work, [spec], emit), kind, work, advance)

    def run_persistently(
        self, work: str, specs: Sequence[Record], emit: Emit, tell: Callable[[Failure], None] = lambda _: None
    ) -> None:
        """Like `run`, but a spec that fails for a reason that may pass is run once more, alone, when all have been run.

        ``tell`` is called with the first failure of such a spec, ``emit`` with its second.
        """
        failures: list[Failure] = []

        def receive(event: Event) -> None:
            if isinstance(event, Failure) and event.may_pass:
                failures.append(event)
                tell(event)
            else:
                emit(event)

        self.run(work, specs, receive)
        for failure in failures:
            self.run(work, [next(spec for spec in specs if spec_id(spec) == failure.id)], emit)


def resolve_work(work: str) -> Work:
    """Import the function that ``package.module:function`` names. Raises `ConfigError` if the module has none."""
    module_name, _, function_name = work.partition(":")
    function = getattr(importlib.import_module(module_name), function_name, None)
    if function is None:
        raise ConfigError(
            f"`{work}` must name a function, but `{module_name}` has no `{function_name}`. Write "
            "`package.module:function`."
        )
    resolved: Work = function
    return resolved
