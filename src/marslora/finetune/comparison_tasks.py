"""The training work of a comparison. An error becomes a `Failure` with the run's id, so that the others go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from marslora.core.record import Record
from marslora.core.runs import Emit, Event, Failure, ProgressEvent
from marslora.core.spec import CountSpec, FinalSpec
from marslora.finetune import worker
from marslora.finetune.count import count_trainable

S = TypeVar("S", bound=Record)


def count_parameters(spec: CountSpec, emit: Emit) -> None:
    """Run `marslora.finetune.count.count_trainable`; an error becomes a `Failure`."""
    _attempt(count_trainable, spec, emit)


def count_row_flops(spec: FinalSpec, emit: Emit) -> None:
    """Run `marslora.finetune.worker.count_final_flops`; an error becomes a `Failure`."""
    _attempt(worker.count_final_flops, spec, emit)


def train(spec: FinalSpec, emit: Emit) -> None:
    """Run `marslora.finetune.worker.run_final`; its progress has the run's id, and an error becomes a `Failure`."""

    def emit_with_id(event: Event) -> None:
        emit(event.model_copy(update={"task": spec.id}) if isinstance(event, ProgressEvent) else event)

    _attempt(worker.run_final, spec, emit_with_id)


def _attempt(work: Callable[[S, Emit], None], spec: S, emit: Emit) -> None:
    try:
        work(spec, emit)
    except Exception as error:  # one method's error must not stop the others
        emit(Failure.of(spec, error))
