"""Run each spec in its own process, several at a time: a crash costs one spec, not the study."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Annotated, Any

from pydantic import Field

from marslora.core.errors import MarsloraError, WorkerDiedError
from marslora.core.packs import WORKER
from marslora.core.record import Record
from marslora.core.runs import Emit, Failure
from marslora.core.stopping import exit_on_termination
from marslora.executors._base import AbstractExecutor, resolve_work

GRACE_SECONDS = 20.0
"""Time that workers have for a last checkpoint. Slurm and Kubernetes kill 30 seconds after SIGTERM by default."""


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
        """See `AbstractExecutor.run`. A process that dies is reported as a `Failure`; the others go on.

        If this process is to end, the workers are asked to write a checkpoint and end, and none is left.
        """
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
                        event = ready.recv()
                    except (EOFError, OSError):  # the latter if it died in the middle of a message
                        child = running.pop(ready)
                        child.process.join()
                        free.append(child.place)
                        if child.process.exitcode:
                            emit(_report_death(child.spec, child.process.exitcode))
                    else:
                        _deliver(event, emit)
        finally:
            _stop(running)


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
    with _block_interrupts():
        process.start()
    sender.close()
    return receiver, _Running(process, spec, place)


@contextlib.contextmanager
def _block_interrupts() -> Iterator[None]:
    """What is started in the block never sees Ctrl-C, which a terminal sends to every process: this one decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _deliver(event: Any, emit: Emit) -> None:
    if isinstance(event, MarsloraError):
        raise event
    emit(event)


def _stop(running: dict[Connection, _Running]) -> None:
    """End the workers: they may write a checkpoint within `GRACE_SECONDS`, and are killed then."""
    for child in running.values():
        child.process.terminate()
    try:
        left, deadline = list(running), time.monotonic() + GRACE_SECONDS
        while left and (seconds := deadline - time.monotonic()) > 0:
            for ready in wait(left, seconds):
                assert isinstance(ready, Connection)
                try:
                    ready.recv()  # its checkpoint has the same; a full pipe would keep it from ending
                except (EOFError, OSError):
                    left.remove(ready)
    finally:
        for pipe, child in running.items():
            child.process.kill()
            child.process.join()
            pipe.close()


def _report_death(spec: Record, code: int) -> Failure:
    ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    message = (
        f"the worker process {ended} before it had a result. Its output above may say why; if it ran out of memory, "
        "use fewer workers."
    )
    return Failure.of(spec, WorkerDiedError(message))


def _run_in_child(work: str, spec: Record, pipe: Connection, num_workers: int, place: int) -> None:
    os.environ[WORKER] = str(place)
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // num_workers))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with exit_on_termination():
            resolve_work(work)(spec, pipe.send)
    except MarsloraError as error:
        pipe.send(error)
    finally:
        pipe.close()


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: another may be about to continue the study."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
