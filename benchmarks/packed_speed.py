"""Packed training against one PEFT run after the other: the same members, rows and steps, each speedup apart.

    python benchmarks/packed_speed.py --out benchmarks/packed_speed.json

The ways take turns within a round, in rotated order, so that a busy machine slows all alike; a ratio is taken within a
round, and the median over rounds is told with the lowest and highest. One thread, the embedded model. The first step
of each run opens the pack and is not timed. Peak memory is measured in processes of their own. With --scale N the model
is N times as wide (random weights): about N^2 times the parameters.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RANKS = (1, 4, 16, 64)
MIXES = {"language": ("language",), "vision": ("vision",), "joint": ("vision", "projector", "language")}
SETTINGS = ("steps", "batch_size", "rows", "scale")
WORTH_AVOIDING = 0.75
WAYS = {
    "sequential": "PEFT, one member after the other",
    "packed": "the batch repeated for K members, padded ranks, all logits",
    "concatenated": "packed + ranks concatenated instead of padded",
    "answers": "concatenated + logits at answer tokens only",
    "once": "answers + frozen towers once a batch instead of once a member",
    "cached": "once + features of frozen towers kept",
    "product": "cached, no more members at a time than a processor's caches hold: as the product runs",
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


def model_folder(scale, folder):
    """The embedded model, or one of random weights that is ``scale`` times as wide."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    from marslora.demo.model import embedded_folder

    embedded, wide = embedded_folder(), Path(folder) / f"model-{scale}"
    if scale == 1:
        return embedded
    if not wide.exists():
        config = AutoConfig.from_pretrained(embedded)
        for part in (config.text_config, config.vision_config):
            for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"):
                if hasattr(part, name):
                    setattr(part, name, scale * getattr(part, name))
        torch.manual_seed(0)
        AutoModelForImageTextToText.from_config(config).save_pretrained(wide)
        AutoProcessor.from_pretrained(embedded).save_pretrained(wide)
    return wide


def setup(task_folder, batch_size, num_steps, num_rows, scale):
    """The embedded model as a base, and the steps' batches: ``num_rows`` rows over and over."""
    import torch

    from marslora.core.spec import DataSpec, ModelSpec, TrainingSpec
    from marslora.data.rows import load_encoded_splits
    from marslora.demo import task_files
    from marslora.engine.pack import Base
    from marslora.engine.prepare import probe_parts
    from marslora.models import loading

    torch.set_num_threads(1)
    paths = task_files.ensure_task("both", task_folder)
    model = ModelSpec(path=str(model_folder(scale, task_folder)))
    loaded = loading.load(model)
    cache = str(Path(task_folder) / "cache")
    data = DataSpec(train=(str(paths["train"]),), validation=(str(paths["validation"]),))
    rows = load_encoded_splits(data, loaded.processor, cache)
    training = TrainingSpec(batch_size=batch_size, learning_rate=1e-3, warmup=0.0)
    info = probe_parts(model, loaded, rows, cache)
    base = Base(loaded.model, info, training, loaded.device, loaded.dtype)
    steps = list(rows.micro_batches(training, 0, 0, batch_size * (num_steps + 1), num_rows))
    return base, steps


def sequential(base, specs, steps):
    """Seconds (wall, CPU) of the steps after the first, and last losses."""
    from marslora.testing.solo import on_peft

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
    """Seconds (wall, CPU) of the steps after the first, and last losses."""
    import torch

    from marslora.adapters import _products
    from marslora.engine.pack import Member, Pack
    from marslora.engine.speedups import Speedups, _towers
    from marslora.engine.step import train_step
    from marslora.models.answers import AnswerHead

    _products.PADDING_WORTH_AVOIDING = 0.0 if way == "packed" else WORTH_AVOIDING
    _towers.clear()
    base.head = AnswerHead(base.model) if way in ("answers", "once", "cached") else None
    speedups = Speedups.of(base, 1 << 30) if way in ("once", "cached") else Speedups()
    for tower in speedups.towers.values():
        tower.plan = "once" if way == "once" else None
    if way == "cached":
        speedups.find_used_outputs(base, base.batch(steps[0][0]))
    alive = torch.ones(len(specs), dtype=torch.bool)
    started = started_cpu = 0.0
    with Pack(base, [Member(spec) for spec in specs]) as pack, speedups.apply(base, len(specs), pack.parts):
        for step, batches in enumerate(steps):
            if step == 1:
                started, started_cpu = time.perf_counter(), time.process_time()
            pack.position.step = step
            pack.set_rates(step, 1000)
            result = train_step(pack, [base.batch(batch) for batch in batches], alive)
    return time.perf_counter() - started, time.process_time() - started_cpu, result.loss_K.tolist()


def train(base, specs, steps, way):
    """Seconds and losses of one way."""
    if way == "sequential":
        return sequential(base, specs, steps)
    if way != "product":
        return packed(base, specs, steps, way)
    from marslora.engine.planning import PROCESSOR_TOKENS

    many = max(1, PROCESSOR_TOKENS // steps[0][0]["labels"].numel())
    found = [packed(base, specs[first : first + many], steps, "cached") for first in range(0, len(specs), many)]
    return (
        sum(wall for wall, _, _ in found),
        sum(cpu for _, cpu, _ in found),
        [x for *_, losses in found for x in losses],
    )


def peak_of_one(arguments):
    """Print the most memory that one way takes over the loaded base, in a process that does nothing else."""
    base, steps = setup(arguments.folder, arguments.batch_size, 2, arguments.rows, arguments.scale)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    before = resident("VmRSS")
    train(base, list(members(arguments.mix, arguments.members[0])), steps, arguments.way)
    print(json.dumps(round(resident("VmHWM") - before, 1)))


def resident(field):
    """A size of this process in megabytes (Linux): VmRSS now, VmHWM at its highest."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def memory(arguments):
    """Peak megabytes over the loaded base, each way in a process of its own."""
    for mix in arguments.memory:
        for count in arguments.members:
            row = {"mix": mix, "members": count}
            for way in ("sequential", "cached"):
                command = [sys.executable, __file__, "--folder", arguments.folder, "--mix", mix, "--way", way]
                for name, value in (("members", count), *((key, getattr(arguments, key)) for key in SETTINGS)):
                    command += [f"--{name.replace('_', '-')}", str(value)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                row[way] = json.loads(done.stdout.strip().splitlines()[-1])
            print(json.dumps(row), flush=True)
            yield row


def compare(arguments, base, steps):
    """Every way of every mix and number of members."""
    for mix in arguments.mixes:
        for count in arguments.members:
            rounds = []
            for number in range(arguments.rounds):
                ways = arguments.ways
                order = ways[number % len(ways) :] + ways[: number % len(ways)]
                rounds.append({way: train(base, list(members(mix, count)), steps, way) for way in order})
            for way in arguments.ways:
                yield summary(arguments, mix, count, way, rounds)


def summary(arguments, mix, count, way, rounds):
    """Medians over the rounds of one way's time, and of its ratio to sequential PEFT in the same round."""
    wall, cpu = (statistics.median(found[way][index] for found in rounds) for index in (0, 1))
    ratios = [[found["sequential"][index] / found[way][index] for found in rounds] for index in (0, 1)]
    pairs = zip(rounds[0][way][2], rounds[0]["sequential"][2], strict=True)
    row = {
        "mix": mix,
        "members": count,
        "way": way,
        "cpu_seconds": round(cpu, 3),
        "wall_seconds": round(wall, 3),
        "examples_per_cpu_second": round(count * arguments.steps * arguments.batch_size / cpu, 1),
        "times_sequential_by_cpu": round(statistics.median(ratios[1]), 2),
        "lowest_and_highest_by_cpu": [round(min(ratios[1]), 2), round(max(ratios[1]), 2)],
        "times_sequential_by_wall": round(statistics.median(ratios[0]), 2),
        "largest_relative_loss_difference": float(f"{max(abs(a - b) / abs(b) for a, b in pairs):.1e}"),
    }
    print(json.dumps(row), flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--mixes", nargs="+", default=list(MIXES), choices=list(MIXES))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rows", type=int, default=64, help="seen over and over: later epochs find features")
    parser.add_argument("--scale", type=int, default=1, help="how many times as wide the model is")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="with `sequential`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", nargs="*", default=["joint"], help="mixes whose peak memory is measured")
    parser.add_argument("--out", default=None)
    parser.add_argument("--folder", default=None, help="where the task's rows are kept")
    parser.add_argument("--mix", default=None)
    parser.add_argument("--way", default=None, choices=list(WAYS))
    arguments = parser.parse_args()
    arguments.folder = arguments.folder or tempfile.mkdtemp(prefix="marslora-speed-")
    if arguments.way:
        peak_of_one(arguments)
        return
    import torch

    base, steps = setup(arguments.folder, arguments.batch_size, arguments.steps, arguments.rows, arguments.scale)
    megabytes = list(memory(arguments))
    results = list(compare(arguments, base, steps))
    settings = {key: getattr(arguments, key) for key in (*SETTINGS, "rounds")}
    record = {
        "ways": WAYS,
        "ranks": RANKS,
        **settings,
        "parameters": sum(parameter.numel() for parameter in base.model.parameters()),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "peak_megabytes_over_base": megabytes,
        "results": results,
    }
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
