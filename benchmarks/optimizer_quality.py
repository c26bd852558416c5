"""Do the matrix optimizers train LoRA better than AdamW, and is their best learning rate the same at every rank?

    python benchmarks/optimizer_quality.py planted --json benchmarks/optimizer_quality.json
    python benchmarks/optimizer_quality.py embedded --json benchmarks/optimizer_quality_embedded.json

*planted* is a toy that trains hundreds of runs at once; *embedded* trains LoRA on the embedded multimodal model in the
product's packed engine. Finished runs are kept in the JSON file: started again, it goes on.

Rules, fixed before running. Every method has the same gradient evaluations (exact methods take half the steps), the
same schedule, starts and batches (paired by seed), weight decay 0. Its learning rate is chosen on the tuning seeds from
a grid that is widened until the best is interior and halved around it; then it is judged on fresh seeds. The negative
control is Moonlight itself, as the two-buffer form of MARS-M with gamma = 1 - beta (other rounding); in the toy also
with bfloat16 in Newton-Schulz, and exact steps whose gradient at the previous point is of another batch. What Moonlight
and its control differ by, this benchmark cannot resolve. A difference is claimed only if its 95 % interval (Student's t
over paired seeds) excludes 0, it survives Holm's correction and it exceeds the control's.

*Does the best learning rate move with the rank?* Curves over the grid at each rank on the rate seeds; the optimum is
the vertex of a parabola through the best point and its neighbours, its interval Student's 95 % over the seeds' own, and
a rank's regret is what it loses at the grid's best learning rate for the first rank.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch

from marslora import optim
from marslora.core import plugins
from marslora.optim import AbstractOptimizer

BASELINE, CONTROL, WRONG = "moonlight", "mars_m gamma 1-b (control)", "mars_m exact .025, other batch (control)"


@dataclass(frozen=True)
class Method:
    """A kind with options; ``passes`` gradient evaluations a step are paid from its budget."""

    kind: str
    options: dict = field(default_factory=dict)
    start: float = 5e-3
    passes: int = 1
    near: bool = False
    """Whether its learning rates are sought around the baseline's best, in a grid of three."""


METHODS = {
    "adamw": Method("adamw"),
    "adamw betas .95 .99": Method("adamw", {"betas": (0.95, 0.99)}),
    "lora+ 4": Method("adamw", {"b_ratio": 4.0}, 2e-3),
    "lora+ 16": Method("adamw", {"b_ratio": 16.0}, 1e-3),
    BASELINE: Method("moonlight"),
    CONTROL: Method("mars_m", {"gamma": None, "clip": 1e9, "first_step": "reference"}, near=True),
    "moonlight plain": Method("moonlight", {"nesterov": False}, near=True),
    "moonlight polar": Method("moonlight", {"precondition": "polar"}, near=True),
    "moonlight b_ratio 2": Method("moonlight", {"b_ratio": 2.0}),
    "moonlight bfloat16": Method("moonlight", {"ns_dtype": "bfloat16"}, near=True),
    "mars_m .01": Method("mars_m", {"gamma": 0.01, "clip": None}, near=True),
    "mars_m .025": Method("mars_m", {"gamma": 0.025, "clip": None}, near=True),
    "mars_m .05": Method("mars_m", {"gamma": 0.05, "clip": None}, near=True),
    "mars_m .025 clipped": Method("mars_m", {"gamma": 0.025}, near=True),
    "mars_m exact .025": Method("mars_m", {"gamma": 0.025, "exact": True}, passes=2),
    "mars_m exact .025, twice the cost": Method("mars_m", {"gamma": 0.025, "exact": True}, near=True),
    WRONG: Method("mars_m", {"gamma": 0.025, "exact": True}, passes=2),
    "muon_mvr": Method("muon_mvr", passes=2),
    "mars_adamw 0": Method("mars_adamw", {"gamma": 0.0}),
    "mars_adamw .025": Method("mars_adamw"),
    "mars_lion": Method("mars_lion", start=1e-3),
    "muon": Method("muon", start=2e-2),
    "mars_shampoo": Method("mars_shampoo", start=2e-2),
    "muon_nsr": Method("muon_nsr"),
    "muon_vs": Method("muon_vs"),
}
MAIN = [CONTROL, "adamw", "mars_m .025 clipped", "mars_m exact .025", "moonlight plain", "mars_m .025", "mars_m .01"]
MAIN += ["mars_m .05", "mars_m exact .025, twice the cost"]
BY_RANK = ["moonlight", "adamw", "muon"]

Trial = Callable[[Method, int, list[float], list[int]], np.ndarray]
"""(method, rank, L learning rates, S seeds) to final validation losses (L, S); infinite where it diverged."""


def planted(steps: int, batch: int = 32) -> Trial:
    """LoRA on a frozen two-layer network whose task moved by a planted rank-4 change; all runs in one pack."""
    sides, train, validation = ((64, 128), (128, 10)), 2048, 2048

    def instance(seed: int) -> dict[str, list[torch.Tensor] | torch.Tensor]:
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
        instances = [instance(seed) for seed in seeds] * len(rates)
        members = len(instances)
        base = [torch.stack([w["base"][layer] for w in instances]) for layer in (0, 1)]
        start = [
            torch.stack([w["uniform"][n][:rank] for w in instances]) / math.sqrt(i) for n, (i, _) in enumerate(sides)
        ]
        factors_a = [torch.nn.Parameter(a) for a in start]
        factors_b = [torch.nn.Parameter(torch.zeros(members, o, rank)) for _, o in sides]
        groups = [
            {"params": params, "role": role, "members": members, "ranks": (rank,) * members}
            for role, params in (("A", factors_a), ("B", factors_b))
        ]
        rates_K = torch.tensor(rates, dtype=torch.float64).repeat_interleave(len(seeds))
        optimizer = plugins.load(optim, method.kind, AbstractOptimizer)(groups, lr=rates_K, **method.options)
        x_KNI, y_KN = (torch.stack([w[name] for w in instances]) for name in ("x", "y"))

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
            rows_KB = torch.stack([w["order"][step] for w in instances])

            at_previous = (
                torch.stack([w["order"][step - 1] for w in instances]) if method is METHODS[WRONG] else rows_KB
            )
            batches = iter([at_previous, rows_KB] if optimizer.needs_two_points else [rows_KB])

            def closure(batches=batches):
                optimizer.zero_grad()
                loss_K(next(batches)).sum().backward()

            optimizer.step(closure)
        with torch.no_grad():
            held_out = torch.arange(train, train + validation).expand(members, -1)
            final = loss_K(held_out).nan_to_num(nan=torch.inf).view(len(rates), len(seeds))
        return final.double().numpy()

    return trial


class Journal:
    """Final validation losses of finished runs, kept in a JSON file."""

    def __init__(self, path: Path | None):
        self.path = path
        found = json.loads(path.read_text()) if path and path.exists() else {}
        self.runs: dict[str, float | None] = found.get("runs", {})

    def add(self, runs: dict[str, float]) -> None:
        """Remember finished runs at once; one that diverged is null."""
        self.runs |= {key: loss if math.isfinite(loss) else None for key, loss in runs.items()}
        self.save({})

    def save(self, report: dict[str, Any]) -> None:
        """Write the report with the runs that it rests on."""
        if self.path:
            beside = self.path.with_suffix(".part")
            beside.write_text(json.dumps({**report, "runs": self.runs}, indent=1) + "\n")
            beside.replace(self.path)


def embedded(options: argparse.Namespace, journal: Journal) -> Trial:
    """LoRA on the embedded multimodal model: a seed's learning rates are one pack of the engine.

    A seed draws the adapters and orders the batches. The learning rate warms up, stays, and falls to 0 at the end.
    """
    from marslora.demo.settings import make_settings

    home = Path(tempfile.mkdtemp())
    task = make_settings(options.task, home / "task")

    def trial(method: Method, rank: int, rates: list[float], seeds: list[int]) -> np.ndarray:
        def key(rate: float, seed: int) -> str:
            setting = f"{options.task} {'+'.join(options.parts)} {options.examples}/{options.batch_size}"
            return f"{setting} {method.kind} {method.options} /{method.passes} r{rank} lr{rate:.4g} s{seed}"

        for seed in seeds:
            missing = [rate for rate in rates if key(rate, seed) not in journal.runs]
            if missing:
                losses = pack_losses(options, task, home, method, rank, missing, seed)
                journal.add({key(rate, seed): loss for rate, loss in zip(missing, losses, strict=True)})
        found = [[journal.runs[key(rate, seed)] for seed in seeds] for rate in rates]
        return np.array([[np.inf if loss is None else loss for loss in row] for row in found])

    return trial


def pack_losses(
    options: argparse.Namespace, task: dict, home: Path, method: Method, rank: int, rates: list[float], seed: int
) -> list[float]:
    """Final validation losses of one pack, a member for each learning rate."""
    from marslora.core.allocation import Allocation
    from marslora.core.runs import Failure, Observation
    from marslora.core.spec import DataSpec, MemberSpec, ModelSpec, PackSpec, PluginSpec, TrainingSpec
    from marslora.engine.worker import run_pack

    examples = options.examples // method.passes // options.batch_size * options.batch_size
    training = {**task["training"], "examples": examples, "batch_size": options.batch_size, "evaluations": 2}
    losses = [math.inf] * len(rates)

    def emit(event: object) -> None:
        if isinstance(event, Failure):
            raise RuntimeError(event.message)
        if isinstance(event, Observation) and event.metric == "validation_loss":
            losses[int(event.member)] = event.value if event.examples == examples else math.inf

    with tempfile.TemporaryDirectory() as folder:
        members = [
            MemberSpec(
                id=f"{number}",
                allocation=Allocation.of(dict.fromkeys(options.parts, rank)),
                data_examples=options.examples,
                until_examples=examples,
                seed=seed,
                order_seed=seed,
                learning_rate=rate,
                decays=True,
            )
            for number, rate in enumerate(rates)
        ]
        run_pack(
            PackSpec(
                id="quality",
                model=ModelSpec(**task["model"]),
                data=DataSpec(**{key: value for key, value in task["data"].items() if key != "test"}),
                training=TrainingSpec(**training, optimizer=PluginSpec(name=method.kind, options=method.options)),
                full_examples=examples,
                members=tuple(members),
                checkpoint_folder=f"{folder}/checkpoints",
                cache_folder=str(home / "cache"),
            ),
            emit,
        )
    return losses


@dataclass(frozen=True)
class Grid:
    """Learning rates: the ratio of neighbours, and how many are tried at first."""

    ratio: float
    points: int

    def refined(
        self, trial: Trial, method: Method, rank: int, seeds: list[int], start: float
    ) -> tuple[float, dict[float, float], bool]:
        """As `tuned`, with two more learning rates half-way to the best one's neighbours."""
        best, found, interior = self.tuned(trial, method, rank, seeds, start)
        rates = [best / self.ratio**0.5, best * self.ratio**0.5]
        found.update(zip(rates, trial(method, rank, rates, seeds).mean(1).tolist(), strict=True))
        return min(found, key=found.__getitem__), dict(sorted(found.items())), interior

    def tuned(
        self, trial: Trial, method: Method, rank: int, seeds: list[int], start: float
    ) -> tuple[float, dict[float, float], bool]:
        """(best learning rate, mean loss by learning rate, whether the best is interior), widening as needed."""
        found: dict[float, float] = {}
        half = (3 if method.near else self.points) // 2
        powers = range(-half, half + 1)
        for _ in range(6):
            rates = [start * self.ratio**power for power in powers]
            found.update(zip(rates, trial(method, rank, rates, seeds).mean(1).tolist(), strict=True))
            best, ordered = min(found, key=found.__getitem__), sorted(found)
            if ordered[0] < best < ordered[-1]:
                return best, dict(sorted(found.items())), True
            edge, more = round(math.log(best / start, self.ratio)), max(1, half)
            powers = range(edge - more, edge) if best == ordered[0] else range(edge + 1, edge + more + 1)
        return best, dict(sorted(found.items())), False


def compared(losses: np.ndarray, baseline: np.ndarray) -> dict[str, float]:
    """Mean paired difference over seeds, its 95 % interval and p-value by Student's t."""
    gaps = losses - baseline
    if not np.ptp(gaps):
        return {"difference": float(gaps[0]), "low": float(gaps[0]), "high": float(gaps[0]), "p": float(not gaps.any())}
    test = scipy.stats.ttest_1samp(gaps, 0.0)
    low, high = test.confidence_interval(0.95)
    return {"difference": float(gaps.mean()), "low": float(low), "high": float(high), "p": float(test.pvalue)}


def with_holm(rows: dict[str, dict[str, float]]) -> None:
    """Add ``holm`` (the corrected p-value) to every row but the control's."""
    names = sorted((name for name in rows if name != CONTROL), key=lambda name: rows[name]["p"])
    highest = 0.0
    for index, name in enumerate(names):
        highest = max(highest, min(1.0, rows[name]["p"] * (len(names) - index)))
        rows[name]["holm"] = highest


def compare(trial: Trial, grid: Grid, rank: int, names: list[str], tuning: list[int], fresh: list[int]) -> dict:
    """Every method at its best learning rate, on fresh seeds, against the baseline; printed as it comes."""
    losses, rows = {}, {}
    for name in names:
        method = METHODS[name]
        start = rows[BASELINE]["lr"] if method.near else method.start
        rate, curve, interior = grid.refined(trial, method, rank, tuning, start)
        losses[name] = trial(method, rank, [rate], fresh)[0]
        rows[name] = {"lr": rate, "interior": interior, "loss": float(losses[name].mean()), "curve": curve}
        gap = compared(losses[name], losses[BASELINE])
        print(f"rank {rank} {name:42} {rows[name]['loss']:.4f} {shown(gap):28} lr {rate:.2g}", flush=True)
    gaps = {name: compared(losses[name], losses[BASELINE]) for name in names if name != BASELINE}
    with_holm(gaps)
    for name, gap in gaps.items():
        rows[name] |= gap
    return {"methods": rows, "losses": {name: values.tolist() for name, values in losses.items()}}


def shown(gap: dict[str, float]) -> str:
    """A difference with its interval."""
    return f"{gap['difference']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]"


def by_rank(trial: Trial, grid: Grid, ranks: list[int], names: list[str], seeds: list[int]) -> dict:
    """How the best learning rate moves with the rank."""
    found: dict[str, dict] = {}
    for name in names:
        method = METHODS[name]
        curves = {rank: grid.tuned(trial, method, rank, seeds, method.start)[1] for rank in ranks}
        first = min(curves[ranks[0]], key=curves[ranks[0]].__getitem__)
        found[name] = {}
        for rank, curve in curves.items():
            if first not in curve:
                curve[first] = float(trial(method, rank, [first], seeds).mean())
            rates = sorted(curve)
            losses_SL = trial(method, rank, rates, seeds).T
            low, high = log_interval([vertex(dict(zip(rates, own, strict=True))) for own in losses_SL.tolist()])
            loss = min(curve.values())
            row = {"optimum": vertex(curve), "low": low, "high": high, "loss": loss, "regret": curve[first] - loss}
            found[name][rank] = {**row, "curve": {rate: curve[rate] for rate in rates}}
            print(
                f"{name:12} rank {rank:3} optimum {row['optimum']:.2e} [{low:.2e}, {high:.2e}] loss {loss:.4f} "
                f"regret {row['regret']:.4f}",
                flush=True,
            )
    return found


def log_interval(values: list[float]) -> tuple[float, float]:
    """95 % interval of a positive quantity by Student's t on its logarithms."""
    logs = np.log(values)
    if not np.ptp(logs):
        return values[0], values[0]
    low, high = scipy.stats.ttest_1samp(logs, 0.0).confidence_interval(0.95)
    return float(np.exp(low)), float(np.exp(high))


def vertex(curve: dict[float, float]) -> float:
    """Where the parabola in log(lr) through the best point and its neighbours is lowest; the best point at an edge."""
    rates = sorted(curve)
    best = min(range(len(rates)), key=lambda index: curve[rates[index]])
    near = rates[max(0, best - 1) : best + 2]
    values = [curve[rate] for rate in near]
    if len(near) < 3 or not np.isfinite(values).all():
        return rates[best]
    a, b, _ = np.polyfit(np.log(near), values, 2)
    return float(np.exp(-b / (2 * a)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("problem", choices=["planted", "embedded"])
    parser.add_argument("--ranks", type=int, nargs="+", help="where methods are compared")
    parser.add_argument("--methods", nargs="+", choices=METHODS)
    parser.add_argument("--tuning-seeds", type=int)
    parser.add_argument("--fresh-seeds", type=int)
    parser.add_argument("--rate-seeds", type=int, help="for the best learning rate by rank")
    parser.add_argument(
        "--lr-ranks", type=int, nargs="*", help="where the best learning rate is sought; first: its own"
    )
    parser.add_argument("--steps", type=int, default=200, help="gradient evaluations of the planted problem")
    parser.add_argument("--task", default="both", help="a task of the embedded model")
    parser.add_argument("--parts", nargs="+", default=["vision", "language"])
    parser.add_argument("--examples", type=int, default=640)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    toy = options.problem == "planted"
    defaults = {
        "ranks": [4, 16] if toy else [8],
        "lr_ranks": [4, 1, 16, 64] if toy else [8, 1, 64],
        "methods": list(METHODS) if toy else MAIN,
        "tuning_seeds": 3 if toy else 2,
        "fresh_seeds": 12 if toy else 6,
        "rate_seeds": 6 if toy else 5,
    }
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    journal = Journal(None if toy else options.json)
    trial = planted(options.steps) if toy else embedded(options, journal)
    grid = Grid(1.8, 7) if toy else Grid(2.0, 5)
    tuning, fresh = list(range(options.tuning_seeds)), list(range(1000, 1000 + options.fresh_seeds))
    names = list(dict.fromkeys([BASELINE, CONTROL, *options.methods]))
    report = {
        "arguments": vars(options) | {"json": None},
        "ranks": {rank: compare(trial, grid, rank, names, tuning, fresh) for rank in options.ranks},
        "best_rate_by_rank": by_rank(trial, grid, options.lr_ranks, BY_RANK, list(range(options.rate_seeds)))
        if options.lr_ranks
        else {},
    }
    journal.path = options.json
    journal.save(report)


if __name__ == "__main__":
    main()
