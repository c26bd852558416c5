"""Where the time of a step goes, and how long its matrix products alone take, on a model of a real one's size.

    python benchmarks/step_profile.py --out benchmarks/step_profile.json

The model has the shapes of SmolLM2-135M and DINOv2-small (random weights, bfloat16); rows have 40 tokens, 16 of them a
picture; members have rank 16 everywhere. ``products`` runs the matrix products and convolutions of one step alone, on
tensors of the same shapes, strides and dtypes. Steps, products and one step of plain PEFT (autocast, torch's AdamW, the
loss of the model) take turns; seconds are those of the processor, since the machine does other work too. ``kernels`` is
torch's own attention kernel instead of products (`marslora.models.attention`). Shares are of the operations' own time,
as torch's profiler has it; what is left to the step's time is Python and autograd.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections import Counter
from pathlib import Path

import peft
import torch
from benchmarks.sized_models import build, draw_batch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from marslora.core.allocation import Allocation
from marslora.core.spec import MemberSpec, TrainingSpec
from marslora.engine.pack import Base, Member, Pack
from marslora.engine.speedups import Speedups
from marslora.engine.step import train_step
from marslora.models.answers import AnswerHead
from marslora.models.attention import prefer_products
from marslora.models.discovery import discover

PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "convolution", "convolution_backward")
COPIES = 8
GROUPS = {
    "matrix products": ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "convolution"),
    "attention kernels": ("_scaled_dot_product",),
    "casts and copies": ("aten::copy_", "aten::cat", "aten::clone"),
    "softmax and loss": ("softmax", "nll_loss", "aten::argmax"),
    "norms and activations": ("aten::mul", "aten::pow", "aten::mean", "aten::rsqrt", "layer_norm", "silu", "gelu"),
    "optimizer": ("foreach", "aten::lerp", "aten::addcdiv", "aten::addcmul"),
}


class Recorder(TorchDispatchMode):
    """Counts the products inside it by what they are given."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else ""
        if name in PRODUCTS:
            self.calls[
                func, tuple(map(describe, args)), tuple((k, describe(v)) for k, v in (kwargs or {}).items())
            ] += 1
        return func(*args, **(kwargs or {}))


def describe(value):
    """An argument without its numbers."""
    if isinstance(value, torch.Tensor):
        return ("tensor", tuple(value.shape), tuple(value.stride()), value.dtype)
    return ("list", tuple(value)) if isinstance(value, list) else ("value", value)


def make(kind, *of):
    """An argument that `describe` describes like this."""
    if kind != "tensor":
        return list(of[0]) if kind == "list" else of[0]
    shape, stride, dtype = of
    size = 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    return torch.randn(size).to(dtype).as_strided(shape, stride)


def replay(calls):
    """Processor seconds of all of them. Equal calls take turns with `COPIES` sets of arguments: in a step, too, the
    weights of a layer are no longer in the caches when they are needed again."""
    spent = 0.0
    with torch.no_grad():
        for (func, args, kwargs), times in calls.items():
            named = {name: make(*each) for name, each in kwargs}
            sets = [[make(*each) for each in args] for _ in range(min(COPIES, times))]
            func(*sets[0], **named)
            started = time.process_time()
            for index in range(times):
                func(*sets[index % len(sets)], **named)
            spent += time.process_time() - started
    return spent


def clock(work):
    """Processor seconds of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def shares(step):
    """{group: share} of the operations' own time in a step."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    spent = Counter()
    for event in found.key_averages():
        if event.key.startswith("aten::"):
            group = next((g for g, names in GROUPS.items() if any(name in event.key for name in names)), "other")
            spent[group] += event.self_cpu_time_total
    return {group: round(value / spent.total(), 3) for group, value in spent.most_common()}


def peft_step(base, spec, collated):
    """(a step of plain PEFT, what takes its adapter off again)."""
    model = peft.get_peft_model(base.model, peft.LoraConfig(**base.lora_settings(spec)))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def step():
        with base.mixed_precision():
            loss = model(**collated).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, model.unload


def measure(base, batch_size, members, rounds, parts):
    """The row of one number of members."""
    trained = {part.name for part in base.info.parts if parts == "all" or part.name != "vision"}
    specs = [
        MemberSpec(
            id=f"m{seed}",
            allocation=Allocation.of({part.name: 16 * (part.name in trained) for part in base.info.parts}),
            data_examples=1,
            until_examples=1,
            seed=seed,
        )
        for seed in range(members)
    ]
    collated = draw_batch(base.name, batch_size, base.dtype)
    batch, alive = base.batch(collated), torch.ones(members, dtype=torch.bool)
    times = {"step": [], "products": [], "kernels": [], "peft": []}

    def turn(way):
        pack = Pack(base, [Member(spec) for spec in specs])
        with pack, Speedups.of(base, 1 << 30).apply(base, members, pack.parts):
            pack.set_rates(0, 100)
            run = lambda: train_step(pack, [batch], alive)  # noqa: E731
            run()
            if way == "shares":
                return shares(run)
            if way == "calls":
                with Recorder() as recorder:
                    run()
                return recorder.calls
            return clock(run)

    calls = turn("calls")
    for _ in range(rounds):
        times["step"].append(turn("step"))
        times["products"].append(replay(calls))
        AttentionInterface.register("sdpa", sdpa_attention_forward)
        times["kernels"].append(turn("step"))
        prefer_products(base.device, base.dtype)
        step, unload = peft_step(base, specs[0], collated)
        step()
        times["peft"].append(clock(step))
        unload()
        base.model.requires_grad_(False).eval()
    row = {"trained": parts, "members": members, "batch": batch_size}
    row |= {f"{name}_seconds": round(statistics.median(found), 3) for name, found in times.items()}
    pairs = {"products": "times_products", "kernels": None, "peft": None}
    ratios = {name: [a / b for a, b in zip(times["step"], times[name], strict=True)] for name in pairs}
    row["step_over_products"] = [round(of(ratios["products"]), 2) for of in (statistics.median, min, max)]
    row["step_over_kernels"] = round(statistics.median(ratios["kernels"]), 2)
    row["times_peft"] = round(members / statistics.median(ratios["peft"]), 2)
    return row | {"shares": turn("shares")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="0.15b")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", default=["all", "language"])
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, dtype = build(arguments.model, torch.bfloat16), torch.bfloat16
    prefer_products(torch.device("cpu"), dtype)
    base = Base(model, discover(model), TrainingSpec(learning_rate=1e-4), torch.device("cpu"), dtype, AnswerHead(model))
    base.name = arguments.model
    rows = []
    for parts in arguments.parts:
        for members in arguments.members:
            rows.append(measure(base, arguments.batch_size, members, arguments.rounds, parts))
            print(json.dumps(rows[-1]), flush=True)
    if arguments.out:
        record = {"model": arguments.model, "rounds": arguments.rounds, "torch": torch.__version__}
        record |= {"machine": platform.machine(), "results": rows}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
