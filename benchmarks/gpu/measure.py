"""Packs on a GPU: speed against PEFT, use of the device, memory, the demo, and that packs train what PEFT trains.

    benchmarks/gpu/run.sh OUT

Each row of ``gpu.json`` is a model (random weights, the sizes of real ones), a dtype, a batch and a number of members
K, all of rank 16 in tower, projector and language model. ``times_peft`` is K steps of a plain PEFT loop (autocast,
fused AdamW, the loss of the model) over one step of the pack; ``use`` is the step's operations a second, as torch
counts them, over those of a large matrix product that was timed in the same run; bytes are the most that were
allocated, the model included. Rows come in order of importance, and those for which there was no time left are listed
under ``left_out``, as is what needs a package that is missing.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from benchmarks.sized_models import build, draw_batch

from marslora.core.allocation import Allocation
from marslora.core.spec import MemberSpec, TrainingSpec
from marslora.engine.flops import count_flops
from marslora.engine.pack import Base, Member, Pack
from marslora.engine.speedups import Speedups
from marslora.engine.step import train_step
from marslora.models.answers import AnswerHead
from marslora.models.discovery import discover
from marslora.models.quantization import PACKAGE, keep_layout, make_quantization
from marslora.testing.solo import on_peft

RANK, WARM, TIMED = 16, 2, 5
"""Of every member; steps before those that are timed, and these, of which the median is told."""
MEMBERS, BATCHES, DTYPES = (1, 4, 16, 2, 8), (8, 1, 4, 2), ("bfloat16", "nf4")
"""In order of importance."""
DEMO_SECONDS = 150
"""Time that is kept for the demo."""


@dataclass
class Report:
    """What was measured, written after every row, and the time that is left."""

    path: Path
    seconds: float
    dry: bool
    record: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds until the run has to end."""
        return self.seconds - (time.monotonic() - self.started)

    def add(self, section: str, row: dict[str, Any]) -> None:
        """Append a row and write the file."""
        self.record.setdefault(section, []).append(row)
        print(section, json.dumps(row), flush=True)
        self.write()

    def write(self) -> None:
        """Write everything so far."""
        self.path.write_text(json.dumps(self.record, indent=1) + "\n")


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_steps(step: Callable[[], object], device: torch.device) -> tuple[float, int | None]:
    """(median seconds of a step, most bytes that were allocated meanwhile); no bytes on a CPU."""
    for _ in range(WARM):
        step()
    wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(TIMED):
        started = time.perf_counter()
        step()
        wait(device)
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return statistics.median(seconds), peak


def time_product(device: torch.device, size: int) -> float:
    """Operations a second of a product of two bfloat16 matrices."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return float(2 * size**3 / time_steps(lambda: a @ b, device)[0])


def open_base(name: str, kind: str, device: torch.device) -> Base:
    """The model called ``name``, in bfloat16, its language model in 4 bits if ``kind`` is nf4."""
    dtype = torch.bfloat16
    model: Any = build(name, dtype, str(device))
    if kind == "nf4":
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            how = make_quantization("nf4", model, dtype)
            model = type(model).from_pretrained(
                folder, dtype=dtype, quantization_config=how, device_map={"": str(device)}
            )
        keep_layout(model)
        model.requires_grad_(False).eval()
    training = TrainingSpec(learning_rate=1e-4, warmup=0.0)
    return Base(model, discover(model), training, device, dtype, AnswerHead(model))


def member(base: Base, seed: int, rank: int = RANK) -> MemberSpec:
    """A run with this rank in every part."""
    ranks = Allocation.of({part.name: rank for part in base.info.parts})
    return MemberSpec(id=f"m{seed}", allocation=ranks, data_examples=1, until_examples=1, seed=seed)


def time_pack(base: Base, collated: dict[str, Any], members: int) -> tuple[float, int | None, float]:
    """(seconds, bytes, operations) of a step of a pack."""
    batch, alive = base.batch(collated), torch.ones(members, dtype=torch.bool)
    pack = Pack(base, [Member(member(base, seed)) for seed in range(members)])
    with pack, Speedups.of(base, 1 << 30).apply(base, members, pack.parts):
        pack.set_rates(0, 100)
        _, operations = count_flops(lambda: train_step(pack, [batch], alive))
        seconds, peak = time_steps(lambda: train_step(pack, [batch], alive), base.device)
    return seconds, peak, operations


def time_peft(base: Base, collated: dict[str, Any]) -> tuple[float, int | None]:
    """(seconds, bytes) of a step of one run in a plain loop."""
    settings = base.lora_settings(member(base, 0))
    assert settings is not None
    model: Any = peft.get_peft_model(base.model, peft.LoraConfig(**settings))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=base.device.type == "cuda")
    inputs = {name: value.to(base.device) for name, value in collated.items()}

    def step() -> None:
        with base.mixed_precision():
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    try:
        return time_steps(step, base.device)
    finally:
        model.unload()
        base.model.requires_grad_(False).eval()


def measure_speed(report: Report, device: torch.device, names: tuple[str, ...], keep: float) -> None:
    """The rows of every model, dtype, batch and number of members, until only ``keep`` seconds are left."""
    kinds = list(itertools.product(names, DTYPES))
    for place, (name, kind) in enumerate(kinds):
        label = f"{name} {kind}"
        if kind == "nf4" and importlib.util.find_spec(PACKAGE) is None:
            report.add("left_out", {"what": label, "why": f"{PACKAGE} is not installed"})
            continue
        until = report.left() - (report.left() - keep) / (len(kinds) - place)
        started = time.perf_counter()
        base = open_base(name, kind, device)
        report.add("opened", {"what": label, "seconds": round(time.perf_counter() - started, 1)})
        measure_packs(report, base, name, kind, until)
        del base
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def measure_packs(report: Report, base: Base, name: str, kind: str, until: float) -> None:
    """The rows of one model and dtype, while more than ``until`` seconds are left."""
    fastest = report.record["product_operations_per_second"]
    batches, counts = (BATCHES[:1], MEMBERS[:2]) if report.dry else (BATCHES, MEMBERS)
    for size in batches:
        collated = draw_batch(name, size, base.dtype)
        alone, alone_peak = time_peft(base, collated)
        for count in counts:
            label = f"{name} {kind}, batch {size}, K {count}"
            if report.left() < until:
                report.add("left_out", {"what": label, "why": "no time left"})
                continue
            found = try_pack(base, collated, count)
            if isinstance(found, str):
                report.add("left_out", {"what": label, "why": found})
                continue
            seconds, peak, operations = found
            row = {"model": name, "dtype": kind, "batch": size, "members": count}
            row |= {"ms": round(1e3 * seconds, 2), "peft_ms": round(1e3 * alone, 2)}
            row |= {"times_peft": round(count * alone / seconds, 2), "peak_bytes": peak}
            row |= {"peft_peak_bytes": alone_peak, "use": round(operations / seconds / fastest, 4)}
            report.add("speed", row)


def try_pack(base: Base, collated: dict[str, Any], members: int) -> tuple[float, int | None, float] | str:
    """As `time_pack`, or why it did not fit."""
    try:
        return time_pack(base, collated, members)
    except torch.OutOfMemoryError as error:
        return str(error).splitlines()[0]


def compare_twins(device: torch.device) -> Iterator[dict[str, Any]]:
    """How far members of a pack are from the same runs on PEFT after three steps, by dtype.

    Weights relative to the largest of their tensor, losses relative to themselves. In bfloat16 only losses say
    something: Adam's first steps are the signs of gradients, and small ones are rounding.
    """
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        model: Any = build("tiny", dtype, str(device))
        base = Base(model, discover(model), TrainingSpec(learning_rate=2**-9), device, dtype, AnswerHead(model))
        specs = [member(base, seed, rank) for seed, rank in enumerate((1, 4, 16))]
        batches = [draw_batch("tiny", 2, dtype, seed) for seed in range(3)]
        alive = torch.ones(len(specs), dtype=torch.bool)
        with Pack(base, [Member(spec) for spec in specs]) as pack:
            losses_TK = []
            for step, collated in enumerate(batches):
                pack.position.step = step
                pack.set_rates(step, 100)
                losses_TK.append(train_step(pack, [base.batch(collated)], alive).loss_K.tolist())
            together = [each.weights for each in pack.copy_members(len(batches))]
        worst = worst_loss = 0.0
        for index, (spec, ours) in enumerate(zip(specs, together, strict=True)):
            with on_peft(base, spec) as solo:
                moved = [[{name: value.to(device) for name, value in each.items()}] for each in batches]
                with base.mixed_precision():
                    solo.train(moved, 100)
                theirs = {name: value.cpu().double() for name, value in solo.weights().items()}
                pairs = zip((losses[index] for losses in losses_TK), solo.losses, strict=True)
                worst_loss = max(worst_loss, *(abs(a - b) / abs(b) for a, b in pairs))
            for name, tensor in theirs.items():
                worst = max(worst, float((ours[name].double() - tensor).abs().max() / tensor.abs().max()))
        row = {"dtype": str(dtype).removeprefix("torch."), "members": len(specs)}
        yield row | {"weights": float(f"{worst:.1e}"), "losses": float(f"{worst_loss:.1e}")}


def run_demo(report: Report, out: Path, device: torch.device) -> dict[str, Any]:
    """The demo's time and what it found."""
    if report.dry:
        return {"left_out": "a dry run"}
    study = out / "demo"
    command = [sys.executable, "-m", "marslora", "demo", "--study", str(study), "--no-uniform"]
    started = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(report.left(), 1.0))
    except subprocess.TimeoutExpired:
        return {"left_out": f"not done after {time.perf_counter() - started:.0f} s"}
    row = {"seconds": round(time.perf_counter() - started, 1), "exit": done.returncode, "device": str(device)}
    if done.returncode:
        return row | {"error": done.stderr.strip().splitlines()[-1:]}
    return row | {"verdict": done.stdout.strip(), "promise": json.loads((study / "promise.json").read_text())}


def main(arguments: list[str] | None = None) -> None:
    """Measure everything and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--dry-run", action="store_true", help="tiny models on a CPU: does it run at all")
    parser.add_argument("--seconds", type=float, default=460.0, help="time for everything")
    given = parser.parse_args(arguments)
    if not given.dry_run and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device. Run it where there is one, or add --dry-run.")
    device = torch.device("cpu" if given.dry_run else "cuda")
    given.out.mkdir(parents=True, exist_ok=True)
    report = Report(given.out / "gpu.json", given.seconds, given.dry_run)
    report.record |= {
        "device": platform.machine() if given.dry_run else torch.cuda.get_device_name(device),
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, peft)},
        "is_dry_run": given.dry_run,
        "product_operations_per_second": time_product(device, 256 if given.dry_run else 8192),
    }
    for row in compare_twins(device):
        report.add("twins", row)
    measure_speed(report, device, ("tiny",) if given.dry_run else ("0.15b", "0.5b"), DEMO_SECONDS)
    report.add("demo", run_demo(report, given.out, device))
    report.record["seconds"] = round(time.monotonic() - report.started, 1)
    report.write()


if __name__ == "__main__":
    main()
