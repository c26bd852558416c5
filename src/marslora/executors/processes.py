"""Run each spec in its own process, several at a time: a crash costs one spec, not the study."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Annotated, Any

from pydantic import Field

from marslora.core.errors import MarsloraError
from marslora.core.packs import WORKER
from marslora.core.record import Record
from marslora.core.runs import Emit, Failure, spec_id
from marslora.executors._base import AbstractExecutor, resolve_work


class Processes(AbstractExecutor):
    """Runs ``num_workers`` processes at a time, which share the CPU's threads and take turns on the accelerators."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractExecutor.Config):
        """The options of the executor."""

        num_workers: Annotated[int, Field(ge=1)] = 2
        """The number of processes that run at the same time."""

    config: Config

    def __init__(self, /, **options: Any) -> None:
        super().__init__(**options)
        self.num_workers = self.config.num_workers

    def run(self, work: str, specs: Sequence[Record], emit: Emit) -> None:
        """See `AbstractExecutor.run`. A process that dies is reported as a `Failure`; the others go on."""
        context = multiprocessing.get_context("spawn")
        waiting = list(specs)
        running: dict[Connection, _Running] = {}
        free = list(range(self.num_workers))
        try:
            while waiting or running:
                while waiting and free:
                    pipe, child = _start(context, work, waiting.pop(0), free.pop(0), self.num_workers)
                    running[pipe] = child
                for ready in wait(list(running)):
                    assert isinstance(ready, Connection)
                    try:
                        _deliver(ready.recv(), emit)
                    except EOFError:
                        child = running.pop(ready)
                        child.process.join()
                        free.append(child.place)
                        if child.process.exitcode:
                            emit(_report_death(child.spec, child.process.exitcode))
        finally:
            for child in running.values():
                child.process.terminate()


@dataclass(frozen=True)
class _Running:
    process: BaseProcess
    spec: Record
    place: int
    """Its number among the workers, from 0."""


def _start(context: SpawnContext, work: str, spec: Record, place: int, num_workers: int) -> tuple[Connection, _Running]:
    """Start a process for one spec; return the end of the pipe at which its events arrive, and the process."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_in_child, args=(work, spec, sender, num_workers, place), daemon=True)
    process.start()
    sender.close()
    return receiver, _Running(process, spec, place)


def _deliver(event: Any, emit: Emit) -> None:
    if isinstance(event, MarsloraError):
        raise event
    emit(event)


def _report_death(spec: Record, code: int) -> Failure:
    message = (
        f"the worker process ended with exit code {code} before it had a result. Its output above may say why; if it "
        "ran out of memory, use fewer workers."
    )
    return Failure(id=spec_id(spec), error="ProcessDied", message=message)


def _run_in_child(work: str, spec: Record, pipe: Connection, num_workers: int, place: int) -> None:
    os.environ[WORKER] = str(place)
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // num_workers))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        resolve_work(work)(spec, pipe.send)
    except MarsloraError as error:
        pipe.send(error)
    finally:
        pipe.close()
