"""Run each spec as a task of a Ray cluster (marslora[ray]), whose nodes may come and go."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from marslora.core.errors import MarsloraError, StudyError, WorkerDiedError
from marslora.core.optional import need
from marslora.core.record import Record
from marslora.core.runs import Emit, Failure
from marslora.executors._base import AbstractExecutor
from marslora.executors._events import Report
from marslora.executors._jobs import GRACE_SECONDS, Job

POLL_SECONDS = 1.0
"""How often the driver looks for tasks that were lost; events arrive at once."""
CONNECT_SECONDS = 10.0
"""How long the head of the cluster may take to answer."""


class Ray(AbstractExecutor):
    """Runs ``num_workers`` tasks at a time. One whose process or node is lost starts again, from its checkpoint."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractExecutor.Config):
        """The options of the executor."""

        num_workers: Annotated[int, Field(ge=1)] = 2
        """The number of tasks that run at the same time."""
        address: str | None = None
        """Address of the cluster. Default: RAY_ADDRESS, else the cluster of this machine, else a new one on it."""
        gpus: Annotated[float, Field(ge=0, le=1)] | None = None
        """GPUs of a task; with 0.25, four share one. Default: 1 if the cluster has any now, otherwise 0."""
        cpus: Annotated[float, Field(ge=0)] = 1.0
        """CPUs of a task, which are its threads."""
        final_gpus: Annotated[int, Field(ge=0)] | None = None
        """GPUs of a final run, all of one node, with a process for each. Default: one, or none if tasks have none."""
        resource: str | None = None
        """A custom resource of Ray that a node must have, e.g. that of one kind of GPU."""
        placement: Literal["spread", "fill"] = "spread"
        """Whether tasks spread over the nodes or fill one after the other, which lets an autoscaler end the rest."""
        retries: Annotated[int, Field(ge=0)] = 3
        """How often a task is started again whose process or node was lost."""

    config: Config

    def __init__(self, /, **options: Any) -> None:
        super().__init__(**options)
        self.num_workers = self.config.num_workers
        self._ray: Any = need("ray", "ray")

    def run(self, work: str, specs: Sequence[Record], emit: Emit) -> None:
        """See `AbstractExecutor.run`. If this process is to end, tasks are asked to write a checkpoint and end.

        Raises `StudyError` if there is no connection to the cluster, or if it is lost.
        """
        _connect(self._ray, self.config.address)
        try:
            with self._open_mailbox() as mailbox:
                _Round(self, mailbox, emit).run(work, specs)
        except self._ray.exceptions.RayError as error:
            raise StudyError(
                f"The connection to the Ray cluster was lost ({_first_line(error)}). Run the same command again: it "
                "continues."
            ) from error

    @contextmanager
    def _open_mailbox(self) -> Iterator[Any]:
        """A mailbox on this node, which is there as long as this process."""
        ray = self._ray
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        mailbox = ray.remote(num_cpus=0, max_concurrency=1000, scheduling_strategy=here)(_Mailbox).remote()
        try:
            yield mailbox
        finally:
            ray.kill(mailbox)

    def _submit(self, job: Job, ticket: int, mailbox: Any) -> Any:
        """Submit a job; the reference of its task."""
        config = self.config
        strategy = {"spread": "SPREAD", "fill": "DEFAULT"}[config.placement]
        resources = {config.resource: 0.001} if config.resource else {}
        run_task = self._ray.remote(
            num_cpus=config.cpus * job.num_processes,
            num_gpus=job.gpus,
            resources=resources,
            max_retries=0,  # a task that starts again reports other events; each has a ticket of its own
            scheduling_strategy=strategy,
        )(_run_task)
        return run_task.remote(job, mailbox, ticket)

    def _count_gpus(self) -> float:
        if self.config.gpus is not None:
            return self.config.gpus
        return 1.0 if self._ray.cluster_resources().get("GPU") else 0.0


@dataclass
class _Running:
    spec: Record
    task: Any
    """Ray's reference of the task."""
    attempt: int


class _Round:
    """The specs of one call of `Ray.run`."""

    def __init__(self, executor: Ray, mailbox: Any, emit: Emit) -> None:
        self.executor, self.mailbox, self.emit = executor, mailbox, emit
        self.ray = executor._ray
        self.running: dict[int, _Running] = {}
        """By ticket. What a lost task still reports has a ticket that is not among them."""
        self.num_tickets = 0

    def run(self, work: str, specs: Sequence[Record]) -> None:
        waiting = [(spec, 0) for spec in specs]
        try:
            while waiting or self.running:
                while waiting and len(self.running) < self.executor.num_workers:
                    self._start(work, *waiting.pop(0))
                self._receive(POLL_SECONDS)
                for ticket in self._find_ended():
                    waiting += self._end(ticket)
        finally:
            self._stop()

    def _start(self, work: str, spec: Record, attempt: int) -> None:
        config = self.executor.config
        job = Job.of(work, spec, self.executor._count_gpus(), config.final_gpus)
        self.num_tickets += 1
        task = self.executor._submit(job, self.num_tickets, self.mailbox)
        self.running[self.num_tickets] = _Running(spec, task, attempt)

    def _receive(self, seconds: float) -> None:
        """Pass on what has been reported, waiting ``seconds`` for it at most."""
        for ticket, report in self.ray.get(self.mailbox.take.remote(seconds)):
            if ticket not in self.running:
                continue
            if isinstance(report, MarsloraError):
                raise report
            if report is None:
                del self.running[ticket]
            else:
                self.emit(report)

    def _find_ended(self) -> list[int]:
        """The tickets of tasks that have ended without saying so: they were lost, or their end is in the mailbox."""
        tickets = {running.task: ticket for ticket, running in self.running.items()}
        if not tickets:
            return []
        ended, _ = self.ray.wait(list(tickets), num_returns=len(tickets), timeout=0)
        self._receive(0.0)
        return [tickets[task] for task in ended if tickets[task] in self.running]

    def _end(self, ticket: int) -> list[tuple[Record, int]]:
        """Give up a task that was lost; (spec, attempt) if it is to be started again."""
        lost = self.running.pop(ticket)
        try:
            self.ray.get(lost.task)
            reason = "it was stopped"
        except self.ray.exceptions.RayError as error:
            has_raised = isinstance(error, self.ray.exceptions.RayTaskError)
            if lost.attempt < self.executor.config.retries and not has_raised:
                return [(lost.spec, lost.attempt + 1)]
            reason = str(error) if has_raised else _first_line(error)
        message = f"its task was lost {lost.attempt + 1} times, the last time because: {reason}"
        self.emit(Failure.of(lost.spec, WorkerDiedError(message)))
        return []

    def _stop(self) -> None:
        """End the tasks: they may write a checkpoint within `GRACE_SECONDS`."""
        tasks = [running.task for running in self.running.values()]
        for task in tasks:
            self.ray.cancel(task, force=False)
        if tasks:
            _, left = self.ray.wait(tasks, num_returns=len(tasks), timeout=GRACE_SECONDS)
            for task in left:
                self.ray.cancel(task, force=True)


class _Mailbox:
    """An actor that keeps reports until the driver takes them."""

    def __init__(self) -> None:
        self._reports: list[tuple[int, Report]] = []
        self._has_some = asyncio.Event()

    async def put(self, ticket: int, report: Report) -> None:
        self._reports.append((ticket, report))
        self._has_some.set()

    async def take(self, seconds: float) -> list[tuple[int, Report]]:
        """The reports since the last call, in the order in which each task made them."""
        if seconds and not self._reports:
            try:
                await asyncio.wait_for(self._has_some.wait(), seconds)
            except TimeoutError:
                return []
        taken, self._reports = self._reports, []
        self._has_some.clear()
        return taken


def _run_task(job: Job, mailbox: Any, ticket: int) -> None:
    """Do a job in a worker of the cluster. Cancelling it is a Ctrl-C for the work."""
    ray: Any = need("ray", "ray")

    def report(what: Report) -> None:
        ray.get(mailbox.put.remote(ticket, what))  # waiting keeps the order, which calls of such an actor do not

    try:
        job.run(report)
        report(None)
    except MarsloraError as error:
        report(error)


def _connect(ray: Any, address: str | None) -> None:
    """Connect to the cluster unless the program has done so. Raises `StudyError` if that fails."""
    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS")
    before = signal.getsignal(signal.SIGTERM)  # Ray's own handler would leave no time for checkpoints
    try:
        host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
        if colon:  # Ray itself waits minutes for an address at which nobody answers
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address=address, logging_level="error", include_dashboard=None if address else False)
    except (OSError, RuntimeError, ValueError) as error:
        raise StudyError(
            f"There is no connection to the Ray cluster {address or 'of this machine'} ({_first_line(error)}). Check "
            "with `ray status` that it runs, and give the address of its head (ray:address=HOST:6379)."
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
