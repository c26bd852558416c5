"""Time and memory of one optimizer step on the LoRA factors of a decoder, as ratios to torch.optim.AdamW in one run.

    python benchmarks/optimizer_speed.py --shapes 0.5b --rank 16 --rounds 15 --json benchmarks/optimizer_speed.json

Every optimizer steps once per round, in rotated order, so that a busy machine slows all alike; a figure is the median
over rounds of the ratio to ``torch.optim.AdamW(foreach=True)`` in the same round, with its 10th and 90th percentile.
The *whole training step* is forward and backward through one frozen decoder layer with adapters, times the number of
layers, plus the step of the optimizer; embedding and head are left out, which makes the optimizer's share look larger.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from marslora import optim
from marslora.core import plugins
from marslora.optim import AbstractOptimizer, peft_groups

SHAPES = {  # layers, hidden, key-value width, intermediate: those of Qwen2.5 0.5B and 7B
    "tiny": (2, 64, 32, 128),
    "0.5b": (24, 896, 128, 4864),
    "7b": (28, 3584, 512, 18944),
}


def linears(hidden, key_value, intermediate):
    """(inputs, outputs) of the seven linears of a layer."""
    attention = [(hidden, hidden), (hidden, key_value), (hidden, key_value), (hidden, hidden)]
    return [*attention, (hidden, intermediate), (hidden, intermediate), (intermediate, hidden)]


class Factors(nn.Module):
    """The LoRA of one linear, with PEFT's names."""

    def __init__(self, inputs, outputs, rank, device):
        super().__init__()
        self.lora_A = nn.ModuleDict({"default": nn.Linear(inputs, rank, bias=False, device=device)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, outputs, bias=False, device=device)})


def factors(shape, rank, device):
    """The factors of all layers, with gradients of different directions and sizes."""
    layers, *sides = SHAPES[shape]
    model = nn.ModuleList(Factors(i, o, rank, device) for _ in range(layers) for i, o in linears(*sides))
    for param in model.parameters():
        param.grad = torch.randn_like(param) * 1e-3
    return model


def builders():
    """Name to a function that builds the optimizer of a model's factors."""
    found = {"torch AdamW foreach": lambda m: torch.optim.AdamW(m.parameters(), 1e-4, foreach=True)}
    if hasattr(torch.optim, "Muon"):
        found["torch Muon"] = lambda m: torch.optim.Muon(m.parameters(), 1e-4, adjust_lr_fn="match_rms_adamw")
    for name in plugins.names(optim):
        kind = plugins.load(optim, name, AbstractOptimizer)
        options = {"exact": False} if name == "muon_mvr" else {}
        found[name] = lambda m, k=kind, o=options: k(peft_groups(m), lr=1e-4, **o)
    mars_m = plugins.load(optim, "mars_m", AbstractOptimizer)
    found["mars_m one-buffer"] = lambda m: mars_m(peft_groups(m), lr=1e-4, clip=None)
    found["mars_m polar"] = lambda m: mars_m(peft_groups(m), lr=1e-4, precondition="polar")
    return found


def timed(work, device):
    """Seconds: of the wall on a GPU; of the processor, all threads together, on a CPU that others may use as well."""
    if device == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_bytes(work, device):
    """Memory that a step takes for itself at its peak, on a GPU; None elsewhere."""
    if device != "cuda":
        return None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated() - before


def state_bytes(optimizer):
    return sum(v.numel() * v.element_size() for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v))


def layer_seconds(shape, rank, tokens, device, rounds):
    """Median time of forward and backward through one frozen layer with adapters on all seven linears."""
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2Model

    _, hidden, key_value, intermediate = SHAPES[shape]
    config = Qwen2Config(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=1,
        num_attention_heads=hidden // 32,
        num_key_value_heads=key_value // 32,
        vocab_size=8,
    )
    model = get_peft_model(Qwen2Model(config).to(device), LoraConfig(r=rank, target_modules="all-linear"))
    inputs = torch.randn(1, tokens, hidden, device=device, requires_grad=True)

    def step():
        model(inputs_embeds=inputs).last_hidden_state.square().mean().backward()

    step()
    return statistics.median(timed(step, device) for _ in range(rounds))


def measure(shape, rank, rounds, device):
    """Rows of the table: seconds, ratios, state and peak memory of every optimizer."""
    model = factors(shape, rank, device)
    built = {name: build(model) for name, build in builders().items()}
    peaks = {}
    for name, optimizer in built.items():
        optimizer.step()
        peaks[name] = peak_bytes(optimizer.step, device)
    seconds = {name: [] for name in built}
    names = list(built)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(timed(built[name].step, device))
    base = seconds["torch AdamW foreach"]
    numbers = sum(param.numel() for param in model.parameters())
    rows = []
    for name, own in seconds.items():
        ratios = sorted(a / b for a, b in zip(own, base, strict=True))
        rows.append(
            {
                "optimizer": name,
                "seconds": statistics.median(own),
                "ratio": statistics.median(ratios),
                "ratio_p10": ratios[len(ratios) // 10],
                "ratio_p90": ratios[-1 - len(ratios) // 10],
                "state_bytes_per_number": state_bytes(built[name]) / numbers,
                "peak_bytes": peaks[name],
            }
        )
    return numbers, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shapes", nargs="+", default=["0.5b"], choices=SHAPES)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of the whole training step's batch")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    about = {
        "rank": options.rank,
        "tokens": options.tokens,
        "rounds": options.rounds,
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    results = []
    for shape in options.shapes:
        results.append(reported(shape, options, device))
        if options.json:
            options.json.write_text(json.dumps({"about": about, "results": results}, indent=1) + "\n")


def reported(shape, options, device):
    """Measure one shape, print its table and return it."""
    numbers, rows = measure(shape, options.rank, options.rounds, device)
    passes = SHAPES[shape][0] * layer_seconds(shape, options.rank, options.tokens, device, min(options.rounds, 3))
    print(f"\n{shape}: {numbers:,} numbers, forward and backward of {options.tokens} tokens {passes:.3f} s")
    print(f"{'optimizer':22} {'ms':>8} {'ratio':>6} {'p10-p90':>12} {'whole step':>10} {'state B':>8}")
    for row in rows:
        row["whole_step_ratio"] = (passes + row["seconds"]) / (passes + rows[0]["seconds"])
        span = f"{row['ratio_p10']:.2f}-{row['ratio_p90']:.2f}"
        print(
            f"{row['optimizer']:22} {1e3 * row['seconds']:8.1f} {row['ratio']:6.2f} {span:>12} "
            f"{row['whole_step_ratio']:10.3f} {row['state_bytes_per_number']:8.2f}"
        )
    return {"shape": shape, "numbers": numbers, "forward_backward_seconds": passes, "rows": rows}


if __name__ == "__main__":
    main()
