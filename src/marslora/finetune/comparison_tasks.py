"""Work that may fail without stopping what else is to be done: an error becomes a `Failure` with the run's id."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from marslora.core.record import Record
from marslora.core.runs import Emit, Event, Failure, ProgressEvent
from marslora.core.spec import CountSpec, FinalSpec
from marslora.finetune import worker
from marslora.finetune.count import count

S = TypeVar("S", bound=Record)


def count_parameters(spec: CountSpec, emit: Emit) -> None:
    """Run `marslora.finetune.count.count`; an error becomes a `Failure`."""
    _attempt(count, spec, emit)


def count_row_flops(spec: FinalSpec, emit: Emit) -> None:
    """Run `marslora.finetune.worker.count_final_flops`; an error becomes a `Failure`."""
    _attempt(worker.count_final_flops, spec, emit)


def train(spec: FinalSpec, emit: Emit) -> None:
    """`marslora.finetune.worker.run_final`; its progress is told under the run's id."""

    def named(event: Event) -> None:
        emit(event.model_copy(update={"task": spec.id}) if isinstance(event, ProgressEvent) else event)

    _attempt(worker.run_final, spec, named)


def _attempt(work: Callable[[S, Emit], None], spec: S, emit: Emit) -> None:
    try:
        work(spec, emit)
    except Exception as error:  # whatever a method does wrong, the others go on
        emit(Failure.of(spec, error))
