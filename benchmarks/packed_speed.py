"""Packed training against one PEFT run after the other: the same members, rows and steps, each lever apart.

    python benchmarks/packed_speed.py --out benchmarks/packed_speed.json

Every measurement is a process of its own (so that peak memory is its own), one thread, the embedded model. The first
step is not timed: it warms up, and opens the pack. CPU seconds are the figure to compare on a machine that others use.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RANKS = (1, 4, 16, 64)
MIXES = {"language": ("language",), "vision": ("vision",), "joint": ("vision", "projector", "language")}
SETTINGS = ("steps", "batch_size", "rows")
WAYS = {
    "sequential": "PEFT, one member after the other",
    "packed": "the batch repeated for K members, padded ranks, all logits",
    "concatenated": "packed + ranks concatenated instead of padded",
    "answers": "concatenated + logits at answer tokens only",
    "once": "answers + frozen towers once a batch instead of once a member",
    "cached": "once + features of frozen towers kept: everything, as the product runs",
}


def members(mix, count):
    from marslora.core.allocation import Allocation
    from marslora.core.spec import MemberSpec

    for index in range(count):
        rank = RANKS[index % len(RANKS)]
        ranks = {part: rank if part in MIXES[mix] else 0 for part in ("vision", "projector", "language")}
        yield MemberSpec(
            id=f"m{index}", allocation=Allocation.of(ranks), data_examples=1, until_examples=1, seed=index // len(RANKS)
        )


def setup(task_folder, batch_size, num_steps, num_rows):
    """The embedded model as a base, and the steps' batches: ``num_rows`` rows over and over."""
    import torch

    from marslora.core.spec import DataSpec, ModelSpec, TrainingSpec
    from marslora.data import scenes
    from marslora.engine.pack import Base
    from marslora.engine.prepare import parts_of
    from marslora.engine.rows import load_rows
    from marslora.models import loading
    from marslora.models.embedded import embedded_folder

    torch.set_num_threads(1)
    paths = scenes.ensure_task("both", task_folder)
    model = ModelSpec(path=str(embedded_folder()))
    loaded = loading.load(model)
    cache = str(Path(task_folder) / "cache")
    data = DataSpec(train=(str(paths["train"]),), validation=(str(paths["validation"]),))
    rows = load_rows(data, loaded.processor, cache)
    training = TrainingSpec(batch_size=batch_size, learning_rate=1e-3, warmup=0.0)
    info = parts_of(model, loaded, rows, cache)
    base = Base(loaded.model, info, training, loaded.device, loaded.dtype)
    steps = list(rows.steps(num_rows, training, 0, 0, batch_size * (num_steps + 1)))
    return base, steps


def sequential(base, specs, steps):
    """Seconds (wall, CPU) and last losses."""
    from marslora.engine.solo import on_peft

    wall = cpu = 0.0
    losses = []
    for spec in specs:
        with on_peft(base, spec) as solo:
            solo.train(steps[:1], 1000)
            started, started_cpu = time.perf_counter(), time.process_time()
            solo.train(steps[1:], 1000)
            wall, cpu = wall + time.perf_counter() - started, cpu + time.process_time() - started_cpu
            losses.append(solo.losses[-1])
    return wall, cpu, losses


def packed(base, specs, steps, way):
    """Seconds (wall, CPU) and last losses."""
    import torch

    from marslora.adapters import _products
    from marslora.engine.levers import Levers
    from marslora.engine.losses import AnswerHead
    from marslora.engine.pack import Member, Pack
    from marslora.engine.step import train_step

    _products.PADDING_WORTH_AVOIDING = 0.0 if way == "packed" else _products.PADDING_WORTH_AVOIDING
    base.head = AnswerHead(base.model) if way in ("answers", "once", "cached") else None
    levers = Levers.of(base, 1 << 30) if way in ("once", "cached") else Levers()
    for tower in levers.towers.values():
        tower.plan = "once" if way == "once" else None
    if way == "cached":
        levers.learn(base, base.batch(steps[0][0]))
    alive = torch.ones(len(specs), dtype=torch.bool)
    started = started_cpu = 0.0
    with Pack(base, [Member(spec) for spec in specs]) as pack, levers.standing_for(base, len(specs), pack.parts):
        for step, batches in enumerate(steps):
            if step == 1:
                started, started_cpu = time.perf_counter(), time.process_time()
            pack.clock.step = step
            pack.set_rates(step, 1000)
            result = train_step(pack, [base.batch(batch) for batch in batches], alive)
    return time.perf_counter() - started, time.process_time() - started_cpu, result.loss_K.tolist()


def measure(arguments):
    """One measurement, printed as JSON."""
    base, steps = setup(arguments.folder, arguments.batch_size, arguments.steps, arguments.rows)
    specs = list(members(arguments.mix, arguments.members[0]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    way = arguments.way
    wall, cpu, losses = sequential(base, specs, steps) if way == "sequential" else packed(base, specs, steps, way)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"wall_seconds": wall, "cpu_seconds": cpu, "peak_bytes": peak, "base_bytes": before, "losses": losses}
    print(json.dumps(found))


def run(arguments, mix, count, way):
    """The measurement in a process of its own."""
    command = [sys.executable, __file__, "--folder", arguments.folder, "--mix", mix, "--way", way]
    for name, value in (("members", count), *((key, getattr(arguments, key)) for key in SETTINGS)):
        command += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(arguments):
    """Every way of every mix and number of members, the ways in turn so that all of them see the machine's moods."""
    results = []
    for mix in arguments.mixes:
        for count in arguments.members:
            runs = {way: [] for way in WAYS}
            for _ in range(arguments.repeats):
                for way in WAYS:
                    runs[way].append(run(arguments, mix, count, way))
            best = {way: min(found, key=lambda one: one["cpu_seconds"]) for way, found in runs.items()}
            examples = count * arguments.steps * arguments.batch_size
            for way, found in best.items():
                reference = best["sequential"]
                error = max(abs(a - b) / abs(b) for a, b in zip(found["losses"], reference["losses"], strict=True))
                row = {
                    "mix": mix,
                    "members": count,
                    "way": way,
                    "cpu_seconds": round(found["cpu_seconds"], 3),
                    "wall_seconds": round(found["wall_seconds"], 3),
                    "examples_per_cpu_second": round(examples / found["cpu_seconds"], 1),
                    "peak_megabytes_over_base": round((found["peak_bytes"] - found["base_bytes"]) / 2**20, 1),
                    "times_sequential_by_cpu": round(reference["cpu_seconds"] / found["cpu_seconds"], 3),
                    "times_sequential_by_wall": round(reference["wall_seconds"] / found["wall_seconds"], 3),
                    "largest_relative_loss_difference": float(f"{error:.1e}"),
                }
                results.append(row)
                print(json.dumps(row), flush=True)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--mixes", nargs="+", default=list(MIXES), choices=list(MIXES))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rows", type=int, default=64, help="seen over and over: later epochs find features")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", default=None)
    parser.add_argument("--folder", default=None, help="where the task's rows are kept")
    parser.add_argument("--mix", default=None)
    parser.add_argument("--way", default=None, choices=list(WAYS))
    arguments = parser.parse_args()
    arguments.folder = arguments.folder or tempfile.mkdtemp(prefix="marslora-speed-")
    if arguments.way:
        measure(arguments)
        return
    import torch

    settings = {key: getattr(arguments, key) for key in (*SETTINGS, "repeats")}
    setup(arguments.folder, arguments.batch_size, 1, arguments.rows)
    results = compare(arguments)
    record = {"ways": WAYS, "ranks": RANKS, **settings, "torch": torch.__version__, "machine": platform.processor()}
    if arguments.out:
        Path(arguments.out).write_text(json.dumps({**record, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
