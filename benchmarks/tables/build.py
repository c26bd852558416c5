"""Finished runs of the embedded tasks, every allocation and seed, as tables on which searches are replayed.

    python benchmarks/tables/build.py [--tables both small ...] [--work FOLDER] [--real FOLDER]

Each table is one parquet file: beside this script (ranks at one learning rate), in `large/` (many allocations, one
seed), in `held_out/` (ranks alone, made later), in `rates/` (ranks and learning rates), in `small/` and `null_small/`
(the same with fewer ranks and shorter runs), in `parts/` (three parts, with rates by part) or in `real/` (ranks and
learning rates of a pretrained model, see `benchmarks/real/`). No constant is learnt from these two. Each run is a full
one (warm-up, stable, decay), validated at points that are even in the logarithm of the examples seen. The five tasks
also have runs of one part alone on fewer rows, for searches that measure parts alone. Runs are checkpointed in the
working folder: run again, the script continues. The tables of `real/` are written several times, each time with more
ranks.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from marslora.core.allocation import Allocation, Space
from marslora.core.runs import Event, Failure, MemberResult, Observation, Prepared
from marslora.core.spec import DataSpec, MemberSpec, ModelSpec, PackSpec, PartRates, PrepareSpec, TrainingSpec
from marslora.demo import task_files, tasks
from marslora.demo.model import embedded_folder
from marslora.replay.table import FinishedRun, RunTable, TableHeader

PROJECTOR_RANK = 16
"""Rank of the projector where it is not searched."""
EVALUATIONS = 16
"""Validation points of a run, even in the logarithm of the examples seen."""
PART_RUN_SHARES = (1 / 32, 1 / 8)
"""Rows of the runs of one part alone, as shares of all; the larger share has the largest rank only."""
PART_RUN_LENGTH = 0.5
"""Their length, as a share of a full run."""


@dataclass(frozen=True)
class RealTask:
    """A task of `benchmarks/real/tasks.py`, of which a full run sees each row once."""

    description: str
    num_train: int
    training: dict[str, object]
    ranks: tuple[int, ...] = (0, 4, 16, 64)


REAL_TASKS = {
    "stamps": RealTask("Tux Paint's stamps: captions in English and French, categories.", 256, {"batch_size": 8}),
    "textile": RealTask("Textiles with local, global or no defects.", 256, {"batch_size": 8}),
    "translation": RealTask("Captions from English into German and Spanish, no pictures.", 256, {"batch_size": 8}),
}


@dataclass(frozen=True)
class TablePlan:
    """What a table holds."""

    task: str
    description: str
    vision: tuple[int, ...] = ()
    language: tuple[int, ...] = ()
    projector: tuple[int, ...] = (PROJECTOR_RANK,)
    num_train: int | None = None
    learning_rate: float | None = None
    """Learning rate, if not the task's own."""
    has_part_runs: bool = False
    examples: int | None = None
    """Examples of a full run, if not the task's own."""
    seeds: tuple[int, ...] = (0, 1, 2)
    folder: str = ""
    """Folder of the table, beside this script."""
    learning_rates: tuple[float, ...] = ()
    """Learning rates at which every allocation is trained; none: that of the task alone."""
    vision_factors: tuple[float, ...] = (1.0,)
    """Factors on the learning rate at which the vision tower is trained, if it is."""
    settings: dict[str, object] = field(default_factory=dict)
    """Further fields of `TrainingSpec`."""
    evaluations: int = EVALUATIONS
    num_validation: int | None = None
    """Validation rows, if not all of the task's."""
    ladders: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    """Ranks of vision and language of the table's growing versions; none: it is written once."""
    base: tasks.DemoTask | RealTask = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", REAL_TASKS.get(self.task) or tasks.find_task(self.task))

    @property
    def versions(self) -> list[TablePlan]:
        """The plan with each of its ladders."""
        return [replace(self, vision=v, language=t, ladders=()) for v, t in self.ladders] or [self]

    @property
    def space(self) -> Space:
        ranks = self.base.ranks
        return Space.of(
            {"vision": self.vision or ranks, "projector": self.projector, "language": self.language or ranks}
        )

    @property
    def rows(self) -> int:
        return self.num_train or self.base.num_train

    @property
    def training(self) -> TrainingSpec:
        own = {"examples": self.examples, "learning_rate": self.learning_rate}
        given = {name: value for name, value in own.items() if value is not None}
        return TrainingSpec.parse({**self.base.training, **given, "evaluations": self.evaluations, **self.settings})

    def members(self, seed: int) -> Iterator[MemberSpec]:
        """The runs of a seed; those of one pack follow one another."""
        full = self.training.examples or 0
        for allocation in self.space.allocations():
            factors = self.vision_factors if allocation["vision"] else (1.0,)
            for rate, factor in itertools.product(self.learning_rates or (self.training.learning_rate,), factors):
                own = () if factor == 1 else (("vision", factor * rate),)
                yield self._make_member(allocation, self.rows, full, seed, rate, own)
        if self.has_part_runs:
            yield from self._list_part_runs(
                seed, round(PART_RUN_LENGTH * full / self.training.batch_size) * self.training.batch_size
            )

    def _list_part_runs(self, seed: int, until: int) -> Iterator[MemberSpec]:
        for part in self.space.searched:
            for share in PART_RUN_SHARES:
                ladder = self.space.ladder(part)
                for rank in ladder if share == min(PART_RUN_SHARES) else ladder[-1:]:
                    part_alone = Allocation.of(dict.fromkeys(self.space.parts, 0)).replace(**{part: rank})
                    rows = max(round(share * self.rows), self.training.batch_size)
                    yield self._make_member(part_alone, rows, until, seed, self.training.learning_rate)

    def _make_member(
        self, allocation: Allocation, rows: int, until: int, seed: int, rate: float, own: PartRates = ()
    ) -> MemberSpec:
        ranks = ".".join(f"{part[0]}{rank}" for part, rank in allocation.ranks)
        rates = ".".join([f"lr{rate:g}", *(f"{part[0]}lr{each:g}" for part, each in own)])
        return MemberSpec(
            id=f"{ranks}.d{rows}.{rates}.s{seed}",
            allocation=allocation,
            data_examples=rows,
            until_examples=until,
            seed=seed,
            order_seed=seed,
            learning_rate=rate,
            part_learning_rates=own,
            validations="regular",
            decays=True,
        )


PLANS = {
    **{
        name: TablePlan(task=name, description=task.description, has_part_runs=True)
        for name, task in tasks.TASKS.items()
    },
    "both_600": TablePlan(task="both", description="`both` with 600 rows.", num_train=600, seeds=(0, 1)),
    "both_lr0.003": TablePlan(task="both", description="`both` at three times the rate.", learning_rate=3e-3),
    "small_lr0.003": TablePlan(
        task="small", description="`small` at three times the rate.", learning_rate=3e-3, seeds=(0, 1)
    ),
    "both_108": TablePlan(
        task="both",
        description="`both`, 108 allocations of three parts, half as long.",
        vision=(2, 4, 8, 16, 32, 64),
        projector=(4, 16, 64),
        language=(2, 4, 8, 16, 32, 64),
        examples=1200,
        seeds=(0,),
        folder="large",
    ),
    "vision_600": TablePlan(
        task="vision", description="`vision` with 600 rows, at twice the rate.", num_train=600, learning_rate=2e-3,
        seeds=(0, 1), folder="held_out",
    ),
    "language_300": TablePlan(
        task="language", description="`language` with 300 rows.", num_train=300, seeds=(0, 1), folder="held_out"
    ),
}  # fmt: skip

RATES = (4e-4, 8e-4, 1.6e-3, 3.2e-3, 6.4e-3)
"""The ladder that `--learning-rate auto` gives the embedded model, rounded."""
SMALL_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
"""Learning rates of the small tables: wider, and shifted."""
SETTINGS = {
    "vision": (0, 4, 16, 64),
    "language": (0, 4, 16, 64),
    "learning_rates": RATES,
    "evaluations": 14,
    "num_validation": 96,
    "folder": "rates",
}
"""What the tables of ranks and learning rates have in common."""
PLANS |= {
    f"{name}_rates": TablePlan(
        task=name,
        description=f"`{name}`: ranks and learning rates, half as long.",
        examples=examples,
        seeds=(0, 1),
        **SETTINGS,
    )
    for name, examples in (("both", 1200), ("vision", 1200), ("language", 1200), ("small", 1200), ("null", 800))
}
SMALL_VARIANTS = {
    "short": {"examples": 320},
    "long": {"examples": 800},
    "few": {"examples": 640, "num_train": 96},
    "wide": {"examples": 640, "settings": {"batch_size": 32}},
    "narrow": {"examples": 400, "settings": {"batch_size": 8}},
    "muon": {"examples": 480, "settings": {"optimizer": "moonlight"}},
}
"""What distinguishes the small tables of one task."""
PLANS |= {
    f"{task}_{variant}": TablePlan(
        task=task,
        description=f"`{task}`: ranks and learning rates, small ({variant}).",
        vision=(0, 4, 32),
        language=(0, 4, 32),
        learning_rates=SMALL_RATES,
        evaluations=12,
        num_validation=96,
        seeds=(0,),
        folder="null_small" if task == "null" else "small",
        **changes,
    )
    for variant, changes in SMALL_VARIANTS.items()
    for task in ("both", "vision", "language", "null")
}
"""Small tables: from these and those in `rates/` the constants of the law of settings are learnt."""
REAL_RATES = {
    "stamps": (4e-4, 8e-4, 1.6e-3, 3.2e-3),
    "textile": (8e-4, 1.6e-3, 3.2e-3),
    "translation": (4e-4, 8e-4, 1.6e-3, 3.2e-3),
}
"""Of the ladder that `--learning-rate auto` gives the real model, 2e-4 to 3.2e-3, what short runs can use."""
GROWING = (
    ((0, 16), (16,)),
    ((0, 16), (16, 64)),
    ((0, 16), (0, 16, 64)),
    ((0, 16, 64), (0, 16, 64)),
    ((0, 4, 16, 64), (0, 4, 16, 64)),
)
"""Ranks of the versions of a real table."""
LANGUAGE_ALONE = (((0,), (16,)), ((0,), (16, 64)), ((0,), (4, 16, 64)))
"""The same where rows have no pictures."""
PLANS |= {
    f"real_{name}": TablePlan(
        task=name,
        description=task.description,
        learning_rates=REAL_RATES[name],
        examples=task.num_train,
        evaluations=6,
        num_validation=64,
        seeds=(0,),
        folder="real",
        projector=(0,) if name == "translation" else (PROJECTOR_RANK,),
        ladders=LANGUAGE_ALONE if name == "translation" else GROWING,
    )
    for name, task in REAL_TASKS.items()
}

REAL_RUNS = {
    "again": ("the leaders with another seed", (0, 16), (16,), (8e-4, 1.6e-3), 1),
    "64": ("rank 64 of the language model alone", (0,), (64,), (8e-4, 1.6e-3), 0),
    "projector": ("the projector alone", (0,), (0,), REAL_RATES["stamps"], 0),
}
"""Single runs of `stamps` that belong to no grid: what, ranks of vision and language, learning rates, seed."""
PLANS |= {
    f"real_stamps_{key}": replace(
        PLANS["real_stamps"],
        description=f"`stamps`: {what}.",
        vision=vision,
        language=language,
        ladders=(),
        learning_rates=rates,
        seeds=(seed,),
        folder="real/runs",
    )
    for key, (what, vision, language, rates, seed) in REAL_RUNS.items()
}
PLANS |= {
    f"real_{name}_largest": replace(
        PLANS[f"real_{name}"],
        description=f"`{name}`: rank 64 everywhere at lower learning rates.",
        vision=(64,),
        language=(64,),
        ladders=(),
        learning_rates=(2e-4, 4e-4),
        folder="real/runs",
    )
    for name in ("stamps", "textile")
}

PLANS["both_parts"] = TablePlan(
    task="both",
    description="`both`: ranks of three parts, learning rates, and factors on that of the vision tower.",
    vision=(0, 4, 32),
    projector=(4, 32),
    language=(4, 32),
    learning_rates=(8e-4, 1.6e-3, 3.2e-3),
    vision_factors=(1 / 3, 1.0, 3.0),
    examples=640,
    evaluations=12,
    num_validation=96,
    seeds=(0, 1),
    folder="parts",
)
"""Three parts with rates by part: no constant is learnt from it."""


class Recorder:
    """Gathers the events of a pack into entries."""

    def __init__(self) -> None:
        self.seen: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        self.results: dict[str, MemberResult] = {}
        self.failure: Failure | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Observation):
            self.seen[event.member][event.metric][event.examples] = event.value
        elif isinstance(event, MemberResult):
            self.results[event.member] = event
        elif isinstance(event, Failure):
            self.failure = event

    def entry(self, member: MemberSpec, num_trainable: int) -> FinishedRun:
        """The entry of a member that has ended."""
        curves, result = self.seen[member.id], self.results[member.id]
        examples = sorted(curves["validation_loss"])
        trained = [t for t in examples if t > 0]
        return FinishedRun(
            allocation=member.allocation,
            data_examples=member.data_examples,
            learning_rate=member.learning_rate or 0.0,
            part_learning_rates=dict(member.part_learning_rates),
            seed=member.seed,
            num_trainable=num_trainable,
            status=result.status,
            examples=tuple(examples),
            validation_loss=tuple(curves["validation_loss"][t] for t in examples),
            validation_accuracy=tuple(curves["validation_accuracy"][t] for t in examples),
            train_loss=tuple(curves["train_loss"][t] for t in trained),
            update_norms={
                metric.partition(".")[2]: tuple(values[t] for t in trained)
                for metric, values in curves.items()
                if metric.startswith("update_norm.")
            },
            seconds=result.cost.seconds,
            flops=result.cost.flops,
            peak_bytes=result.cost.peak_bytes,
        )


def find_place(plan: TablePlan, work: Path, real: Path) -> tuple[ModelSpec, dict[str, Path]]:
    """The model of a table, and the files of its rows."""
    if isinstance(plan.base, tasks.DemoTask):
        return ModelSpec(path=str(embedded_folder())), task_files.ensure_task(plan.task, work / "rows")
    files = {split: real / "tasks" / plan.task / f"{split}.jsonl" for split in ("train", "validation")}
    return ModelSpec(path=str(real / "model"), dtype="bfloat16"), files


def build(name: str, plan: TablePlan, work: Path, real: Path) -> RunTable:
    """Run everything that a table holds."""
    from marslora.engine.prepare import prepare
    from marslora.engine.worker import run_pack

    training = plan.training
    folder = work / f"{plan.task}-{plan.rows}-{training.examples}{'-' + name if plan.folder else ''}"
    model, paths = find_place(plan, work, real)
    data = DataSpec(
        train=(str(paths["train"]),),
        validation=(str(paths["validation"]),),
        max_examples=plan.num_train,
        max_validation=plan.num_validation or DataSpec.model_fields["max_validation"].default,
    )
    prepared: list[Prepared] = []
    spec = PrepareSpec(model=model, data=data, batch_size=training.batch_size, cache_folder=str(folder / "cache"))
    prepare(spec, lambda event: prepared.append(event) if isinstance(event, Prepared) else None)
    entries: list[FinishedRun] = []
    for seed in plan.seeds:
        groups: dict[tuple[object, ...], list[MemberSpec]] = defaultdict(list)
        for member in plan.members(seed):
            groups[member.data_examples, frozenset(member.allocation.active)].append(member)
        for number, group in enumerate(groups.values()):
            recorder, start = Recorder(), time.perf_counter()
            spec = PackSpec(
                id=f"{name}.{seed}.{number}",
                model=model,
                data=data,
                training=training,
                full_examples=training.examples or 0,
                members=tuple(group),
                checkpoint_folder=str(folder / "members"),
                cache_folder=str(folder / "cache"),
            )
            run_pack(spec, recorder, measure_updates=True)
            if recorder.failure is not None:
                raise SystemExit(f"{spec.id}: {recorder.failure.error}: {recorder.failure.message}")
            entries += [recorder.entry(m, prepared[0].info.num_trainable(m.allocation)) for m in group]
            print(f"{spec.id}: {len(group)} runs, {time.perf_counter() - start:.0f} s", flush=True)
    rates = plan.learning_rates
    header = TableHeader(
        name=name,
        description=plan.description,
        space=plan.space,
        num_train=plan.rows,
        full_examples=training.examples or 0,
        batch_size=training.batch_size,
        learning_rate=rates[len(rates) // 2] if rates else training.learning_rate,
        learning_rates=rates,
        part_rate_factors={"vision": plan.vision_factors} if len(plan.vision_factors) > 1 else {},
        num_validation=prepared[0].data.num_validation,
        seeds=plan.seeds,
        made_by=f"python benchmarks/tables/build.py --tables {name}",
        versions={package: version(package) for package in ("marslora", "torch", "transformers", "peft")},
        device=f"{platform.machine()}, {os.environ.get('OMP_NUM_THREADS', 'all')} thread(s)",
    )
    return RunTable(header, tuple(entries))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=list(PLANS), default=list(PLANS))
    parser.add_argument("--work", type=Path, default=Path("tables-work"))
    parser.add_argument("--real", type=Path, default=Path("real-work"), help="what benchmarks/real/ made")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--versions", type=int, help="stop after so many versions of a table that grows")
    given = parser.parse_args()
    for name in given.tables:
        for plan in PLANS[name].versions[: given.versions]:
            build(name, plan, given.work, given.real).save(given.out / plan.folder / f"{name}.parquet")


if __name__ == "__main__":
    main()
