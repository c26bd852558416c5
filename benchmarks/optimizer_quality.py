"""Do the matrix optimizers train LoRA better than AdamW, and is their best learning rate the same at every rank?

    python benchmarks/optimizer_quality.py planted --json benchmarks/optimizer_quality.json
    python benchmarks/optimizer_quality.py embedded --task both --examples 3000

Rules, fixed before running. Every method has the same gradient evaluations (exact methods take half the steps), the
same schedule, starts and batches (paired by seed). Its learning rate is chosen on the tuning seeds from a grid that is
widened until the best is interior, then it is judged on fresh seeds. The negative controls are Moonlight itself: as the
two-buffer form of MARS-M with gamma = 1 - beta (other rounding), and with bfloat16 in Newton-Schulz. What they differ
by, this benchmark cannot resolve. A difference is claimed only if its 95 % interval excludes 0, it survives Holm's
correction and it exceeds the controls'.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from marslora import optim
from marslora.core import kinds
from marslora.optim._base import AbstractOptimizer

BASELINE, CONTROL = "moonlight", "mars_m gamma 1-b (control)"
GRID = 1.8
"""Ratio of neighbouring learning rates."""


@dataclass(frozen=True)
class Method:
    """A kind with options; ``passes`` gradient evaluations a step."""

    kind: str
    options: dict = field(default_factory=dict)
    start: float = 5e-3
    passes: int = 1


METHODS = {
    "adamw": Method("adamw"),
    "adamw betas .95 .99": Method("adamw", {"betas": (0.95, 0.99)}),
    "lora+ 4": Method("adamw", {"b_ratio": 4.0}, 2e-3),
    "lora+ 16": Method("adamw", {"b_ratio": 16.0}, 1e-3),
    BASELINE: Method("moonlight"),
    "moonlight plain": Method("moonlight", {"nesterov": False}),
    "moonlight polar": Method("moonlight", {"precondition": "polar"}),
    "moonlight b_ratio 2": Method("moonlight", {"b_ratio": 2.0}),
    CONTROL: Method("mars_m", {"gamma": None, "clip": 1e9, "first_step": "reference"}),
    "moonlight bfloat16": Method("moonlight", {"ns_dtype": "bfloat16"}),
    "mars_m .01": Method("mars_m", {"gamma": 0.01, "clip": None}),
    "mars_m .025": Method("mars_m", {"gamma": 0.025, "clip": None}),
    "mars_m .025 clipped": Method("mars_m", {"gamma": 0.025}),
    "mars_m exact .025": Method("mars_m", {"gamma": 0.025, "exact": True}, passes=2),
    "muon_mvr": Method("muon_mvr", passes=2),
    "mars_adamw 0": Method("mars_adamw", {"gamma": 0.0}),
    "mars_adamw .025": Method("mars_adamw"),
    "mars_lion": Method("mars_lion", start=1e-3),
    "muon": Method("muon", start=2e-2),
    "mars_shampoo": Method("mars_shampoo", start=2e-2),
    "muon_nsr": Method("muon_nsr"),
    "muon_vs": Method("muon_vs"),
}

Trial = Callable[[Method, int, list[float], list[int]], np.ndarray]
"""(method, rank, L learning rates, S seeds) to final validation losses (L, S); infinite where it diverged."""


def planted(steps: int, batch: int = 32) -> Trial:
    """LoRA on a frozen two-layer network whose task moved by a planted rank-4 change; all runs in one pack."""
    sides, train, validation = ((64, 128), (128, 10)), 2048, 2048

    def world(seed: int) -> dict[str, list[torch.Tensor] | torch.Tensor]:
        make = torch.Generator().manual_seed(seed)
        base = [torch.randn(o, i, generator=make) * math.sqrt(2 / i) for i, o in sides]
        change = [
            0.7 * torch.randn(o, 4, generator=make) @ torch.randn(4, i, generator=make) / math.sqrt(4 * i)
            for i, o in sides
        ]
        x = torch.randn(train + validation, sides[0][0], generator=make)
        logits = 2 * (x @ (base[0] + change[0]).T).relu() @ (base[1] + change[1]).T
        y = torch.multinomial(logits.softmax(-1), 1, generator=make)[:, 0]
        order = torch.stack([torch.randperm(train, generator=make)[:batch] for _ in range(steps)])
        uniform = [torch.rand(64, i, generator=make) * 2 - 1 for i, _ in sides]
        return {"base": base, "x": x, "y": y, "order": order, "uniform": uniform}

    def trial(method: Method, rank: int, rates: list[float], seeds: list[int]) -> np.ndarray:
        worlds = [world(seed) for seed in seeds] * len(rates)
        members = len(worlds)
        base = [torch.stack([w["base"][layer] for w in worlds]) for layer in (0, 1)]
        start = [torch.stack([w["uniform"][n][:rank] for w in worlds]) / math.sqrt(i) for n, (i, _) in enumerate(sides)]
        factors_a = [torch.nn.Parameter(a) for a in start]
        factors_b = [torch.nn.Parameter(torch.zeros(members, o, rank)) for _, o in sides]
        groups = [
            {"params": params, "role": role, "members": members, "ranks": (rank,) * members}
            for role, params in (("A", factors_a), ("B", factors_b))
        ]
        rates_K = torch.tensor(rates, dtype=torch.float64).repeat_interleave(len(seeds))
        optimizer = kinds.load(optim, method.kind, AbstractOptimizer)(groups, lr=rates_K, **method.options)
        x_KNI, y_KN = (torch.stack([w[name] for w in worlds]) for name in ("x", "y"))

        def loss_K(rows_KB: torch.Tensor) -> torch.Tensor:
            h = x_KNI.gather(1, rows_KB[:, :, None].expand(-1, -1, x_KNI.shape[-1]))
            for layer in (0, 1):
                h = h @ base[layer].mT + 2 * (h @ factors_a[layer].mT) @ factors_b[layer].mT
                h = h.relu() if layer == 0 else 2 * h
            picked = h.log_softmax(-1).gather(2, y_KN.gather(1, rows_KB)[:, :, None])
            return -picked.mean((1, 2))

        own_steps = steps // method.passes
        for step in range(own_steps):
            factor = min(1.0, (step + 1) / (0.05 * own_steps), (own_steps - step) / (0.5 * own_steps))
            for group in optimizer.param_groups:
                group["lr"] = rates_K * factor
            rows_KB = torch.stack([w["order"][step] for w in worlds])

            def closure(rows_KB=rows_KB):
                optimizer.zero_grad()
                loss_K(rows_KB).sum().backward()

            optimizer.step(closure)
        with torch.no_grad():
            held_out = torch.arange(train, train + validation).expand(members, -1)
            final = loss_K(held_out).nan_to_num(nan=torch.inf).view(len(rates), len(seeds))
        return final.double().numpy()

    return trial


def embedded(options: argparse.Namespace) -> Trial:
    """LoRA on the embedded multimodal model, all runs of a method in one pack of the engine."""
    from marslora.core.allocation import Allocation
    from marslora.core.runs import Failure, Observation
    from marslora.core.spec import DataSpec, KindSpec, MemberSpec, ModelSpec, PackSpec, TrainingSpec
    from marslora.engine.worker import run_pack
    from marslora.recipes._embedded import settings

    home = Path(tempfile.mkdtemp())
    task = settings(options.task, home / "task")

    def trial(method: Method, rank: int, rates: list[float], seeds: list[int]) -> np.ndarray:
        if method.passes > 1:
            return np.full((len(rates), len(seeds)), np.inf)  # the engine gives gradients at one point only
        grid = [(rate, seed) for rate in rates for seed in seeds]
        with tempfile.TemporaryDirectory() as folder:
            spec = PackSpec(
                id="quality",
                model=ModelSpec(**task["model"]),
                data=DataSpec(**{key: value for key, value in task["data"].items() if key != "test"}),
                training=TrainingSpec(
                    **{**task["training"], "examples": options.examples},
                    optimizer=KindSpec(name=method.kind, options=method.options),
                ),
                full_examples=options.examples,
                members=tuple(
                    MemberSpec(
                        id=f"{number}",
                        allocation=Allocation.of(dict.fromkeys(options.parts, rank)),
                        data_examples=options.examples,
                        until_examples=options.examples,
                        seed=seed,
                        learning_rate=rate,
                    )
                    for number, (rate, seed) in enumerate(grid)
                ),
                checkpoint_folder=f"{folder}/checkpoints",
                cache_folder=str(home / "cache"),
            )
            losses = np.full(len(grid), np.inf)

            def emit(event: object) -> None:
                if isinstance(event, Failure):
                    raise RuntimeError(event.message)
                if isinstance(event, Observation) and event.metric == "validation_loss":
                    losses[int(event.member)] = event.value

            run_pack(spec, emit)
        return losses.reshape(len(rates), len(seeds))

    return trial


def tuned(trial: Trial, method: Method, rank: int, seeds: list[int]) -> tuple[float, dict[float, float], bool]:
    """(best learning rate, mean loss by learning rate, whether the best is interior), widening the grid as needed."""
    found: dict[float, float] = {}
    powers = range(-3, 4)
    for _ in range(5):
        rates = [method.start * GRID**power for power in powers]
        found.update(zip(rates, trial(method, rank, rates, seeds).mean(1).tolist(), strict=True))
        best, ordered = min(found, key=found.__getitem__), sorted(found)
        if ordered[0] < best < ordered[-1]:
            return best, found, True
        edge = round(math.log(best / method.start, GRID))
        powers = range(edge - 3, edge) if best == ordered[0] else range(edge + 1, edge + 4)
    return best, found, False


def compared(losses: np.ndarray, baseline: np.ndarray, draws: int = 10_000) -> dict[str, float]:
    """Mean paired difference, its bootstrap 95 % interval, and the p-value of a sign-flip test."""
    rng = np.random.default_rng(0)
    gaps = losses - baseline
    means = rng.choice(gaps, (draws, len(gaps))).mean(1)
    flips = np.abs((rng.choice([-1, 1], (draws, len(gaps))) * gaps).mean(1))
    low, high = np.quantile(means, [0.025, 0.975])
    p = float((1 + (flips >= abs(gaps.mean())).sum()) / (draws + 1))
    return {"difference": float(gaps.mean()), "low": float(low), "high": float(high), "p": p}


def with_holm(rows: dict[str, dict[str, float]]) -> None:
    """Add ``holm`` (the corrected p-value) to every row but the control's."""
    names = sorted((name for name in rows if name != CONTROL), key=lambda name: rows[name]["p"])
    highest = 0.0
    for index, name in enumerate(names):
        highest = max(highest, min(1.0, rows[name]["p"] * (len(names) - index)))
        rows[name]["holm"] = highest


def study(trial: Trial, ranks: list[int], names: list[str], num_tuning: int, num_fresh: int) -> dict:
    """Everything, printed as it comes."""
    tuning, fresh = list(range(num_tuning)), list(range(1000, 1000 + num_fresh))
    report: dict = {"tuning_seeds": tuning, "fresh_seeds": fresh, "ranks": {}}
    for rank in ranks:
        losses, rows = {}, {}
        for name in names:
            rate, curve, interior = tuned(trial, METHODS[name], rank, tuning)
            losses[name] = trial(METHODS[name], rank, [rate], fresh)[0]
            rows[name] = {"lr": rate, "interior": interior, "loss": float(losses[name].mean()), "curve": curve}
        gaps = {name: compared(losses[name], losses[BASELINE]) for name in names if name != BASELINE}
        with_holm(gaps)
        print(f"\nrank {rank}: mean validation loss on {num_fresh} fresh seeds, difference to {BASELINE}")
        for name in sorted(names, key=lambda n: rows[n]["loss"]):
            rows[name] |= gaps.get(name, {})
            gap = gaps.get(name)
            text = f"{gap['difference']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]" if gap else ""
            print(f"{name:28} {rows[name]['loss']:.4f} {text:28} lr {rows[name]['lr']:.2g}")
        report["ranks"][rank] = {"methods": rows, "losses": {n: v.tolist() for n, v in losses.items()}}
    print("\nbest learning rate by rank")
    for name in names:
        print(f"{name:28}", *(f"{report['ranks'][rank]['methods'][name]['lr']:8.2g}" for rank in ranks))
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("problem", choices=["planted", "embedded"])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--tuning-seeds", type=int, default=5)
    parser.add_argument("--fresh-seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300, help="gradient evaluations of the planted problem")
    parser.add_argument("--task", default="both", help="a task of the embedded model")
    parser.add_argument("--parts", nargs="+", default=["vision", "language"])
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = list(dict.fromkeys([BASELINE, CONTROL, "moonlight bfloat16", *options.methods]))
    trial = planted(options.steps) if options.problem == "planted" else embedded(options)
    report = study(trial, options.ranks, names, options.tuning_seeds, options.fresh_seeds)
    if options.json:
        options.json.write_text(json.dumps({"arguments": vars(options) | {"json": None}, **report}, indent=1) + "\n")


if __name__ == "__main__":
    main()
