"""Run specs in processes of their own, several at a time: a crash costs one spec, not the study."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from marslora.core.errors import MarsloraError
from marslora.core.packs import WORKER
from marslora.core.record import Record
from marslora.core.runs import Failure
from marslora.executors._base import AbstractExecutor, Emit, resolve


class Processes(AbstractExecutor):
    """``num_workers`` processes at a time, the machine's threads and accelerators shared among them."""

    def __init__(self, num_workers: int = 2) -> None:
        if num_workers < 1:
            raise ValueError(f"`num_workers` must be at least 1, found {num_workers}")
        self.num_workers = num_workers

    def run(self, work: str, specs: Sequence[Record], emit: Emit) -> None:
        """See `AbstractExecutor.run`. A process that dies is reported as a `Failure`; the others go on."""
        context = multiprocessing.get_context("spawn")
        waiting = list(specs)
        running: dict[Connection, tuple[Any, Record, int]] = {}
        free = list(range(self.num_workers))
        try:
            while waiting or running:
                while waiting and free:
                    spec, place = waiting.pop(0), free.pop(0)
                    ours, theirs = context.Pipe(duplex=False)
                    told = (work, spec, theirs, self.num_workers, place)
                    process = context.Process(target=_child, args=told, daemon=True)
                    process.start()
                    theirs.close()
                    running[ours] = (process, spec, place)
                for pipe in wait(list(running)):
                    assert isinstance(pipe, Connection)
                    try:
                        _deliver(pipe.recv(), emit)
                    except EOFError:
                        process, spec, place = running.pop(pipe)
                        process.join()
                        free.append(place)
                        if process.exitcode:
                            emit(_died(spec, process.exitcode))
        finally:
            for process, _, _ in running.values():
                process.terminate()


def _deliver(event: Any, emit: Emit) -> None:
    if isinstance(event, MarsloraError):
        raise event
    emit(event)


def _died(spec: Record, code: int) -> Failure:
    return Failure(
        pack=str(getattr(spec, "id", "")), error="ProcessDied", message=f"its process ended with code {code}"
    )


def _child(work: str, spec: Record, pipe: Connection, num_workers: int, place: int) -> None:
    os.environ[WORKER] = str(place)
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // num_workers))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        resolve(work)(spec, pipe.send)
    except MarsloraError as error:
        pipe.send(error)
    finally:
        pipe.close()
