"""Packed training against mLoRA 0.5.2, which also trains several LoRA on one frozen base, on a language model.

    python -m venv mlora && mlora/bin/pip install torch transformers==4.44.2 "huggingface-hub<1" "datasets<4" \\
        evaluate accelerate sentencepiece scikit-learn tiktoken && mlora/bin/pip install --no-deps mlora==0.5.2
    python benchmarks/packed_peer.py --mlora-python mlora/bin/python --out benchmarks/packed_peer.json

A small Llama of random weights that both read from one folder; the same first weights of every adapter, the same tokens
for every member and step, AdamW, float32, one thread, no clipping. mLoRA runs in a process of its own, with its own
trainer, and waits while the others run. The ways take turns within a round, in rotated order; a ratio is taken within a
round, and the median over rounds is told with the lowest and highest. First steps are not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from marslora.core.allocation import Allocation
from marslora.core.spec import MemberSpec, TrainingSpec
from marslora.engine.pack import Base, Member, Pack
from marslora.engine.speedups import Speedups
from marslora.engine.step import train_step
from marslora.models.answers import AnswerHead
from marslora.models.discovery import discover
from marslora.testing.solo import on_peft

MIXES = {"equal": (16,), "mixed": (4, 8, 16, 32)}
SETTINGS = ("layers", "steps", "batch_size", "tokens", "attention", "dropout", "rounds", "mlora")
RATES = {"learning_rate": 2e-3, "alpha_over_rank": 2}
VOCABULARY, TOKENS_IN_USE = 512, 32
WAYS = {
    "sequential": "PEFT, one member after the other",
    "packed": "marslora, all members at once",
    "packed_recomputed": "packed + layers recomputed in the backward",
    "mlora": "mLoRA's trainer, all jobs at once; it always recomputes layers in the backward",
    "mlora_kept": "mlora with its recomputation switched off",
    "mlora_sequential": "mlora_kept, one job after the other",
}


def setup(arguments, hidden, folder):
    """A base of that width, written to ``folder``, and the tokens of every step."""
    torch.manual_seed(0)
    sizes = {"hidden_size": hidden, "intermediate_size": 8 * hidden // 3 // 8 * 8, "vocab_size": VOCABULARY}
    config = LlamaConfig(**sizes, num_hidden_layers=arguments.layers, num_attention_heads=hidden // 32)
    LlamaForCausalLM(config).save_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=arguments.attention)
    model.requires_grad_(False).eval()
    settings = {"batch_size": arguments.batch_size, "dropout": arguments.dropout, "warmup": 0.0, "clip_norm": 0.0}
    training, device = TrainingSpec(**settings, **RATES), torch.device("cpu")
    base = Base(model, discover(model), training, device, torch.float32, AnswerHead(model))
    return base, torch.randint(TOKENS_IN_USE, (arguments.steps + 1, arguments.batch_size, arguments.tokens))


def members(mix, count):
    for index in range(count):
        allocation = Allocation.of({"language": MIXES[mix][index % len(MIXES[mix])]})
        yield MemberSpec(id=f"m{index}", allocation=allocation, data_examples=1, until_examples=1, seed=index)


def sequential(base, specs, steps):
    """Seconds (wall, CPU) of the steps after the first, and every member's losses."""
    wall, cpu, losses = 0.0, 0.0, []
    for spec in specs:
        with on_peft(base, spec) as solo:
            solo.train(steps[:1], 1000)
            started, started_cpu = time.perf_counter(), time.process_time()
            solo.train(steps[1:], 1000)
            wall, cpu = wall + time.perf_counter() - started, cpu + time.process_time() - started_cpu
            losses.append(solo.losses)
    return wall, cpu, losses


def packed(base, specs, steps, speedups):
    """The same of a pack."""
    alive, losses, ends = torch.ones(len(specs), dtype=torch.bool), [], []
    with Pack(base, [Member(spec) for spec in specs]) as pack, speedups.apply(base, len(specs), pack.parts):
        for step, batches in enumerate(steps):
            pack.position.step = step
            pack.set_rates(step, 1000)
            losses.append(train_step(pack, [base.batch(batch) for batch in batches], alive).loss_K.tolist())
            ends.append((time.perf_counter(), time.process_time()))
    return ends[-1][0] - ends[0][0], ends[-1][1] - ends[0][1], [list(each) for each in zip(*losses, strict=True)]


class Peer:
    """mLoRA in a process of its own; it waits while nothing is asked of it."""

    def __init__(self, python, folder):
        command = [python, str(Path(__file__).with_name("_mlora_driver.py")), str(folder)]
        environment = {**os.environ, "MLORA_BACKEND_TYPE": "CPU", "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, bufsize=1, env=environment, **pipes)
        self.versions = self._answer()

    def _answer(self):
        if line := self.process.stdout.readline():
            return json.loads(line)
        raise SystemExit(f"mLoRA ended with {self.process.wait()}: see above.")

    def train(self, **ask):
        """Seconds (wall, CPU) of the steps after the first, and every member's losses."""
        self.process.stdin.write(json.dumps(ask) + "\n")
        return self._answer()


def write_case(base, specs, tokens, path):
    """What mLoRA starts from: the tokens, and every member's first weights under PEFT's names."""
    members = Pack(base, [Member(spec) for spec in specs]).copy_members(0)
    weights = [{f"base_model.model.{key}": value for key, value in each.weights.items()} for each in members]
    torch.save({"tokens": tokens, "weights": weights}, path)


def train(way, base, specs, tokens, peer, case):
    """Seconds and losses of one way."""
    if way.startswith("mlora"):
        ranks = [spec.allocation.get("language") for spec in specs]
        how = {"together": way != "mlora_sequential", "recompute": way == "mlora", "dropout": base.training.dropout}
        return peer.train(case=str(case), ranks=ranks, **how, **RATES)
    steps = [[{"input_ids": step, "attention_mask": torch.ones_like(step), "labels": step}] for step in tokens]
    if way == "sequential":
        return sequential(base, specs, steps)
    return packed(base, specs, steps, Speedups(recompute=way == "packed_recomputed"))


def compare(arguments, hidden, folder):
    """Every way of every mix and number of members on a model of that width."""
    base, tokens = setup(arguments, hidden, folder)
    peer, ways = Peer(arguments.mlora_python, folder), list(WAYS)
    arguments.mlora, case = peer.versions, Path(folder) / "case.pt"
    write_case(base, specs := list(members("equal", 1)), tokens[:2], case)
    for way in ways:  # nobody's first use of anything is timed
        train(way, base, specs, tokens[:2], peer, case)
    for mix in arguments.mixes:
        for count in arguments.members:
            write_case(base, specs := list(members(mix, count)), tokens, case)
            rounds = []
            for number in range(arguments.rounds):
                order = ways[number % len(ways) :] + ways[: number % len(ways)]
                rounds.append({way: train(way, base, specs, tokens, peer, case) for way in order})
            for way in ways:
                row = {"hidden": hidden, "ranks": mix, "members": count, "way": way, **summary(way, rounds)}
                print(json.dumps(row), flush=True)
                yield row
    peer.process.communicate()  # no more questions: it ends


def summary(way, rounds):
    """Medians over the rounds of one way's time and, with lowest and highest, of its ratios within a round."""
    row = {"cpu_seconds": round(statistics.median(found[way][1] for found in rounds), 3)}
    for other in ("sequential", "mlora", "mlora_kept"):
        wall, cpu = ([found[other][index] / found[way][index] for found in rounds] for index in (0, 1))
        row[f"times_{other}_by_cpu"] = [round(of(cpu), 2) for of in (statistics.median, min, max)]
        row[f"times_{other}_by_wall"] = round(statistics.median(wall), 2)
    mine, peft = ([loss for member in rounds[0][name][2] for loss in member] for name in (way, "sequential"))
    difference = max(abs(a - b) / abs(b) for a, b in zip(mine, peft, strict=True))
    row["mean_loss_by_step"] = [round(statistics.mean(step), 4) for step in zip(*rounds[0][way][2], strict=True)]
    return row | {"largest_relative_loss_difference": float(f"{difference:.1e}")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mlora-python", required=True, help="the interpreter of an environment that has mLoRA 0.5.2")
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--members", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--mixes", nargs="+", default=list(MIXES), choices=list(MIXES))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="that are timed")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64, help="of every row: nothing is padded")
    parser.add_argument("--attention", default="eager", help="of PEFT and packs (eager, sdpa); mLoRA's is eager")
    parser.add_argument("--dropout", type=float, default=0.0, help="mLoRA takes 1e-9 for 0, and draws masks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for hidden in arguments.hidden:
        with tempfile.TemporaryDirectory(prefix="marslora-peer-") as folder:
            results += compare(arguments, hidden, folder)
    settings = {key: getattr(arguments, key) for key in SETTINGS}
    if arguments.out:
        settings |= {"torch": torch.__version__, "machine": platform.machine()}
        record = {"ways": WAYS, "ranks": MIXES, **settings, "results": results}
        Path(arguments.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
