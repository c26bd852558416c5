"""Run each spec as a job of a Slurm array (marslora[slurm]), which is queued again after preemption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import Field

from marslora.core.errors import MarsloraError, StudyError, WorkerDiedError
from marslora.core.files import write_text
from marslora.core.optional import need
from marslora.core.record import Record
from marslora.core.runs import Emit, Failure
from marslora.core.stopping import Terminated
from marslora.executors._base import AbstractExecutor
from marslora.executors._events import EventFile
from marslora.executors._jobs import GRACE_SECONDS, Job

POLL_SECONDS = 0.5
"""How often the events of jobs are read."""
LOOK_SECONDS = 10.0
"""How often Slurm is asked which jobs there still are."""
LOOKS = 2
"""Looks in a row at which a job must be gone: what it wrote last may still be on its way through the file system."""
MOST_TIMEOUTS = 1000
"""How often a job may be queued again because its time was over."""


class Slurm(AbstractExecutor):
    """Submits arrays of jobs, of which ``num_workers`` run at a time. Events come back through the study's folder."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractExecutor.Config):
        """The options of the executor."""

        num_workers: Annotated[int, Field(ge=1)] = 2
        """The number of jobs that run at the same time."""
        gpus: Annotated[int, Field(ge=0)] = 1
        """GPUs of a job. Packs use one."""
        final_gpus: Annotated[int, Field(ge=0)] | None = None
        """GPUs of a final run, all of one node, with a process for each. Default: as many as a job has."""
        cpus: Annotated[int, Field(ge=1)] = 4
        """CPUs of a job, which are its threads."""
        memory_gb: Annotated[float, Field(gt=0)] | None = None
        """Memory of a job in GB. Default: that of the partition."""
        minutes: Annotated[int, Field(ge=1)] = 240
        """Time limit of a job. One that needs longer is queued again and goes on from its checkpoint."""
        partition: str | None = None
        """Partition of the jobs."""
        account: str | None = None
        """Account of the jobs."""
        sbatch: tuple[str, ...] = ()
        """Other options of sbatch without dashes, e.g. [qos=low,constraint=a100]."""
        setup: tuple[str, ...] = ()
        """Shell commands that a job begins with, e.g. [module load cuda]."""
        retries: Annotated[int, Field(ge=0)] = 3
        """How often a job is submitted again that Slurm has lost or ended."""
        cluster: Literal["slurm", "local"] = "slurm"
        """Where jobs run; local: in processes of this machine, to try it without Slurm."""

    config: Config

    def __init__(self, /, **options: Any) -> None:
        super().__init__(**options)
        self.num_workers = self.config.num_workers
        self._submitit: Any = need("submitit", "slurm")

    def run(self, work: str, specs: Sequence[Record], emit: Emit) -> None:
        """See `AbstractExecutor.run`. If this process is to end, jobs are cancelled, with time for a checkpoint.

        Raises `StudyError` if jobs cannot be submitted.
        """
        if specs:
            _Round(self, _find_folder(specs[0]), emit).run(work, specs)

    def _submit(self, jobs: Sequence[_ClusterJob], folder: Path) -> list[Any]:
        """Submit jobs with equally many GPUs as one array; submitit's handles."""
        config, gpus = self.config, int(jobs[0].job.gpus)
        options = dict(option.lstrip("-").partition("=")[::2] for option in config.sbatch)
        try:
            executor = self._submitit.AutoExecutor(
                folder=folder / "%j", cluster=config.cluster, slurm_max_num_timeout=MOST_TIMEOUTS
            )
            executor.update_parameters(
                name="marslora",
                timeout_min=config.minutes,
                cpus_per_task=config.cpus * max(1, gpus),
                slurm_array_parallelism=self.num_workers,
                slurm_additional_parameters={name: value or True for name, value in options.items()},
                **({"gpus_per_node": gpus} if gpus else {}),
                **({"mem_gb": config.memory_gb} if config.memory_gb else {}),
                **{f"slurm_{name}": value for name in ("partition", "account") if (value := getattr(config, name))},
                **({f"{config.cluster}_setup": list(config.setup)} if config.setup else {}),
            )
            return list(executor.submit_array(jobs))
        except Exception as error:  # the errors of submitit have no class in common
            raise StudyError(
                f"Slurm does not take the jobs ({' '.join(str(error).split())[-400:]}). Run this command on a machine "
                "with sbatch, and check the options of the executor (marslora list slurm)."
            ) from error


@dataclass
class _Running:
    spec: Record
    events: EventFile
    attempt: int
    looks: int = 0
    """Looks in a row at which it was gone."""


class _Round:
    """The specs of one call of `Slurm.run`, whose jobs have their files in ``folder``."""

    def __init__(self, executor: Slurm, folder: Path, emit: Emit) -> None:
        self.executor, self.folder, self.emit = executor, folder.absolute(), emit
        self.is_local = executor.config.cluster == "local"
        self.running: dict[Any, _Running] = {}
        """By submitit's handle."""

    def run(self, work: str, specs: Sequence[Record]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._cancel_leftovers()
        waiting, looked = [(spec, 0) for spec in specs], time.monotonic()
        try:
            while waiting or self.running:
                room = self.executor.num_workers - len(self.running) if self.is_local else len(waiting)
                self._start(work, waiting[:room])
                del waiting[:room]
                if not self._receive():
                    time.sleep(POLL_SECONDS)
                if self.is_local or time.monotonic() - looked > LOOK_SECONDS:
                    waiting += self._end_lost()
                    looked = time.monotonic()
        finally:
            self._stop()
            self._write_running()

    def _start(self, work: str, specs: Sequence[tuple[Record, int]]) -> None:
        config = self.executor.config
        jobs: dict[float, list[tuple[_ClusterJob, _Running]]] = {}
        for spec, attempt in specs:
            job = Job.of(work, spec, config.gpus, config.final_gpus)
            events = self.folder / f"{uuid4().hex[:12]}.jsonl"
            pair = _ClusterJob(job, events), _Running(spec, EventFile(events), attempt)
            jobs.setdefault(job.gpus, []).append(pair)
        for pairs in jobs.values():
            handles = self.executor._submit([job for job, _ in pairs], self.folder)
            self.running |= dict(zip(handles, (running for _, running in pairs), strict=True))
        if specs:
            self._write_running()

    def _receive(self) -> bool:
        """Pass on what has been reported; whether there was anything."""
        has_some = False
        for handle, running in list(self.running.items()):
            for report in running.events.read():
                has_some = True
                if isinstance(report, MarsloraError):
                    raise report
                if report is None:
                    del self.running[handle]
                else:
                    self.emit(report)
        return has_some

    def _end_lost(self) -> list[tuple[Record, int]]:
        """Give up jobs that are gone without a result; (spec, attempt) of those that are submitted again."""
        again: list[tuple[Record, int]] = []
        gone = self._find_gone()
        self._receive()
        for handle, running in list(self.running.items()):
            running.looks = running.looks + 1 if handle in gone else 0
            if running.looks < LOOKS:
                continue
            del self.running[handle]
            has_raised = handle.paths.result_pickle.exists()
            if running.attempt < self.executor.config.retries and not has_raised:
                again.append((running.spec, running.attempt + 1))
            else:
                self.emit(Failure.of(running.spec, WorkerDiedError(_describe_loss(handle, running.attempt))))
        return again

    def _find_gone(self) -> set[Any]:
        """The jobs that have ended, whether or not they said so, as far as Slurm tells."""
        if self.is_local:
            return {handle for handle in self.running if handle.done()}
        queued = _list_queued()
        return set() if queued is None else {handle for handle in self.running if handle.job_id not in queued}

    def _stop(self) -> None:
        """Cancel the jobs: they may write a checkpoint within `GRACE_SECONDS`."""
        if not self.running:
            return
        for handle in self.running:
            with suppress(OSError, subprocess.SubprocessError):
                handle.cancel(check=False)
        _wait_until(lambda: len(self._find_gone()) == len(self.running))
        self.running.clear()

    def _write_running(self) -> None:
        write_text(self.folder / "running.json", json.dumps([handle.job_id for handle in self.running]))

    def _cancel_leftovers(self) -> None:
        """Cancel the jobs of an earlier start that was killed: whoever holds the study's lock is the only one."""
        path = self.folder / "running.json"
        if self.is_local or not path.exists():
            return
        left = json.loads(path.read_text())
        if left:
            subprocess.run(["scancel", *left], check=False, capture_output=True)
            _wait_until(lambda: not set(left) & (_list_queued() or set()))


@dataclass
class _ClusterJob:
    """What submitit calls in a job."""

    job: Job
    events: Path

    def __call__(self) -> None:
        """Do the job. Asked to make room, it writes a checkpoint and has itself queued again."""
        os.environ.setdefault("OMP_NUM_THREADS", os.environ.get("SLURM_CPUS_PER_TASK", str(os.cpu_count())))
        file = EventFile(self.events)
        asked: list[int] = []
        queue_again: Any = signal.getsignal(signal.SIGUSR2)

        def ask(number: int, _frame: object) -> None:
            asked.append(number)
            signal.raise_signal(signal.SIGTERM)  # which training knows

        signal.signal(signal.SIGTERM, _terminate)
        signal.signal(signal.SIGUSR2, ask)
        try:
            self.job.run(file.write)
            file.write(None)
        except MarsloraError as error:
            file.write(error)
        except (Terminated, KeyboardInterrupt):
            if not asked:
                raise
            queue_again(signal.SIGUSR2, None)

    def checkpoint(self) -> Any:
        """What submitit runs when the job is started again: the same, which goes on from the checkpoint."""
        return need("submitit", "slurm").helpers.DelayedSubmission(self)


def _terminate(*_: object) -> None:
    raise Terminated


def _find_folder(spec: Record) -> Path:
    """The folder for the files of jobs: in the study's folder, which every machine has."""
    cache = getattr(getattr(spec, "run", spec), "cache_folder", None)
    return Path(cache).parent / "slurm" if cache else Path("slurm")


def _list_queued() -> set[str] | None:
    """The ids of this user's jobs that wait or run; None if Slurm does not answer."""
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        print(f"squeue does not answer: {done.stderr.strip()}", file=sys.stderr)
        return None
    return set(done.stdout.split())


def _wait_until(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GRACE_SECONDS
    while not is_done() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _describe_loss(handle: Any, attempt: int) -> str:
    log: Path = handle.paths.stderr
    last: Iterable[str] = ()
    with suppress(OSError):
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
    return (
        f"its job ended without a result {attempt + 1} times, the last time as {handle.job_id}: "
        f"{next(iter(last), 'no output')} (see {log})"
    )
