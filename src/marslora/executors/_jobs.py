"""One spec as a job for a cluster: run it in a process of any machine that has the study's folder."""

from __future__ import annotations

import math
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from marslora.core.errors import MarsloraError, StudyError, WorkerDiedError
from marslora.core.packs import GPU_SHARE
from marslora.core.record import Record
from marslora.core.runs import Emit
from marslora.core.spec import FinalSpec
from marslora.executors._base import resolve_work
from marslora.executors._events import EventFile

GRACE_SECONDS = 20.0
"""Time that a job has for a last checkpoint. Slurm and Kubernetes kill 30 seconds after SIGTERM by default."""
POLL_SECONDS = 0.2
"""How often the events of processes on the same machine are read."""


@dataclass(frozen=True)
class Job:
    """A spec and what it needs to run elsewhere."""

    work: str
    spec: Record
    folder: str
    """The folder in which the study was started, on which relative paths of the spec depend."""
    gpus: float = 0.0
    """GPUs that it takes: a share of one, or several of one machine, each with a process of its own."""

    @classmethod
    def of(cls, work: str, spec: Record, gpus: float, final_gpus: int | None) -> Job:
        """The job of a spec on ``gpus`` GPUs; final runs take ``final_gpus``, by default no GPU or a whole one."""
        if isinstance(spec, FinalSpec):
            gpus = math.ceil(gpus) if final_gpus is None else final_gpus
        return cls(work, spec, os.getcwd(), gpus)

    @property
    def num_processes(self) -> int:
        """Processes that do the work together, started by ``torchrun``."""
        return max(1, int(self.gpus))

    def run(self, emit: Emit) -> None:
        """Do the work here. Raises what it raises, and `StudyError` if the study's folder is not on this machine."""
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        self._check_study()
        os.environ[GPU_SHARE] = str(min(1.0, self.gpus) or 1.0)
        if self.num_processes > 1:
            _run_in_processes(self, emit)
        else:
            resolve_work(self.work)(self.spec, emit)

    def _check_study(self) -> None:
        cache = getattr(self.spec, "cache_folder", None)
        if cache is not None and not Path(cache).parent.is_dir():
            raise StudyError(
                f"{socket.gethostname()} does not have the study folder {Path(self.folder, cache).parent}. Every "
                "machine needs it, the model and the rows under the same path, e.g. on a network file system: give a "
                "folder there (--study)."
            )


def _run_in_processes(job: Job, emit: Emit) -> None:
    """Let ``torchrun`` start the job's processes on this machine, of which the first one reports."""
    with tempfile.TemporaryDirectory() as folder:
        events = EventFile(Path(folder, "events.jsonl"))
        Path(folder, "job.pkl").write_bytes(pickle.dumps(job))
        count = ["--standalone", "--nproc_per_node", str(job.num_processes)]
        launched = ["-m", __name__, folder, str(os.getpid())]
        process = subprocess.Popen([sys.executable, "-m", "torch.distributed.run", *count, *launched])
        try:
            while process.poll() is None:
                _pass_on(events, emit)
                time.sleep(POLL_SECONDS)
        finally:
            _end(process)
        _pass_on(events, emit)
        if process.returncode:
            raise WorkerDiedError(
                f"one of the {job.num_processes} processes of the final run ended with exit code "
                f"{process.returncode}. Its output above may say why."
            )


def _pass_on(events: EventFile, emit: Emit) -> None:
    for report in events.read():
        if isinstance(report, MarsloraError):
            raise report
        if report is not None:
            emit(report)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End ``torchrun``, which passes the signal on to its processes: they may write a checkpoint."""
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _main(folder: str, parent: str) -> None:
    """One of the processes that `_run_in_processes` has started."""
    threading.Thread(target=_end_with, args=(psutil.Process(int(parent)),), daemon=True).start()
    job = pickle.loads(Path(folder, "job.pkl").read_bytes())
    events = EventFile(Path(folder, "events.jsonl"))
    is_first = os.environ["RANK"] == "0"
    try:
        resolve_work(job.work)(job.spec, events.write if is_first else lambda _: None)
    except MarsloraError as error:
        events.write(error)
        sys.exit(1)


def _end_with(parent: psutil.Process) -> None:
    """End this process when the one that waits for it is gone: another may be about to continue the run."""
    while parent.is_running():
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    _main(*sys.argv[1:])
