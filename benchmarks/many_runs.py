"""What a study of many runs on 256 workers costs the process that leads it, by simulation: its jobs only sleep.

    OMP_NUM_THREADS=1 python benchmarks/many_runs.py [--runs 2000] [--storage URL] [--out FILE.json]

Every run has 50 observations, half of them validation losses. Stages are timed for a quarter and all of the
runs: what grows faster than they do is worse than linear. CPU seconds count: wall times are those of the machine's disk
and of whatever else it does. The database of `--storage` should be empty.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import platform
import queue
import resource
import statistics
import tempfile
import threading
import time
from pathlib import Path

from marslora.core.allocation import Allocation
from marslora.core.progress import SilentListener
from marslora.core.runs import Cost, MemberResult, Observation, PackResult
from marslora.core.spec import MemberSpec, PackSpec, StudySpec
from marslora.executors import AbstractExecutor
from marslora.rounds import train_packs
from marslora.store.study import Study

RUNS, WORKERS, POINTS = 2000, 256, 25
"""Runs, workers, and points of each run; each has a validation and a training loss."""
RANKS = (1, 2, 4, 8, 16, 32, 64)


class Sleepers(AbstractExecutor):
    """Workers that only sleep: each waits ``seconds`` between its points and reports them."""

    def __init__(self, num_workers: int, seconds: float) -> None:
        super().__init__()
        self.num_workers, self.seconds = num_workers, seconds
        self.waited: list[float] = []
        """Seconds from each report to the moment at which the driver had taken it."""
        self.busy = 0.0
        """Seconds in which the driver handled reports."""

    def run(self, work, specs, emit):  # noqa: ARG002
        reports: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._sleep, args=(list(specs), reports), daemon=True).start()
        for _ in range(sum(2 * POINTS + 2 for _ in specs)):
            at, event = reports.get()
            begun = time.perf_counter()
            emit(event)
            ended = time.perf_counter()
            self.busy += ended - begun
            self.waited.append(ended - at)

    def _sleep(self, specs, reports):
        """One thread keeps the calendar of all workers, so that they take no time themselves."""
        calendar = []
        for place in range(min(self.num_workers, len(specs))):
            heapq.heappush(
                calendar, (time.perf_counter() + self.seconds * place / self.num_workers, place, 0, specs.pop())
            )
        while calendar:
            at, place, number, spec = heapq.heappop(calendar)
            time.sleep(max(0.0, at - time.perf_counter()))
            for event in events_at(spec, number):
                reports.put((time.perf_counter(), event))
            if number + 1 < POINTS:
                heapq.heappush(calendar, (at + self.seconds, place, number + 1, spec))
            elif specs:
                heapq.heappush(calendar, (at + self.seconds, place, 0, specs.pop()))


def events_at(pack, number):
    (member,) = pack.members
    examples, loss = 16 * number, 2.0 - 0.03 * number
    for metric in ("validation_loss", "train_loss"):
        yield Observation(member=member.id, examples=examples, metric=metric, value=loss)
    if number + 1 == POINTS:
        cost = Cost(seconds=1.0, examples=member.until_examples)
        yield MemberResult(member=member.id, status="complete", examples=member.until_examples, cost=cost)
        yield PackResult(pack=pack.id, members=(), cost=cost)


def members(count: int) -> list[MemberSpec]:
    return [
        MemberSpec(
            id=f"run{number}",
            allocation=Allocation.of(vision=RANKS[number % 7], language=RANKS[number // 7 % 7]),
            until_examples=16 * (POINTS - 1),
            data_examples=512,
            seed=number,
        )
        for number in range(count)
    ]


def pack_of(member: MemberSpec, spec: StudySpec, folder: Path) -> PackSpec:
    return PackSpec(
        id=member.id,
        model=spec.model,
        data=spec.data,
        training=spec.training,
        full_examples=1024,
        members=(member,),
        checkpoint_folder=str(folder / "members"),
        cache_folder=str(folder / "cache"),
    )


def study_spec(seed: int) -> StudySpec:
    ladder = [["vision", list(RANKS)], ["language", list(RANKS)]]
    return StudySpec.parse(
        {
            "model": {"path": "m"},
            "data": {"train": ["a"]},
            "space": {"ladders": ladder},
            "search": {"seed": seed},
        }
    )


def measure(count: int, storage: str | None, seconds: float) -> dict[str, float]:
    """Seconds of every stage of a study of ``count`` runs, each of whose points takes ``seconds``."""
    spec, found = study_spec(seed=count), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def stage(label, work):
            begun, cpu = time.perf_counter(), time.process_time()
            result = work()
            found[label] = round(time.perf_counter() - begun, 3)
            found[f"{label}_cpu"] = round(time.process_time() - cpu, 3)
            return result

        with Study.create(folder, spec, storage) as study:
            stage("create", lambda: study.trials)
            specs = members(count)
            stage("register", lambda: study.trials.start(*specs))
            sleepers = Sleepers(WORKERS, seconds)
            packs = [pack_of(member, spec, folder) for member in specs]
            stage("train", lambda: train_packs(study, sleepers, "w", packs, SilentListener()))
            runs = stage("read", study.finished_runs)
            assert len(runs) == count and all(len(run.validation_loss) == POINTS for run in runs)
        with Study.create(folder, spec, storage) as study:
            stage("open_again", lambda: study.trials)
    found["ideal_train"] = round(-(-count // WORKERS) * POINTS * seconds, 3)
    waited = sorted(sleepers.waited)
    observations = 2 * POINTS * count
    return {
        **found,
        "observations": observations,
        "observations_per_second_of_driver": round(observations / sleepers.busy),
        "driver_busy_seconds": round(sleepers.busy, 2),
        "driver_cpu_ms_per_observation": round(1e3 * found["train_cpu"] / observations, 3),
        "driver_cpu_share_while_training": round(found["train_cpu"] / found["ideal_train"], 4),
        "driver_share_of_workers_time": round(sleepers.busy / (count * POINTS * seconds), 5),
        "seconds_between_points_at_which_it_is_busy_5_percent": round(
            2 * WORKERS * sleepers.busy / observations / 0.05, 1
        ),
        "latency_ms": {
            "median": round(1e3 * statistics.median(waited), 2),
            "99 %": round(1e3 * waited[int(0.99 * len(waited))], 2),
            "highest": round(1e3 * waited[-1], 1),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", help="PostgreSQL, measured instead of SQLite; its password in PGPASSWORD")
    parser.add_argument("--seconds", type=float, default=0.5, help="between two points of a worker")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--out", type=Path, help="where the result is also written")
    options = parser.parse_args()
    found: dict[str, object] = {"workers": WORKERS, "seconds_between_points": options.seconds}
    found["storage"] = "postgresql" if options.storage else "sqlite"
    for count in (options.runs // 4, options.runs):
        found[f"{count} runs"] = measure(count, options.storage, options.seconds)
    found["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    found["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
    print(json.dumps(found, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
