"""Are the embedded tasks what their names say? A 4x4 grid of vision and language ranks per task, three seeds each.

    python benchmarks/embedded_tasks.py --out benchmarks/embedded_tasks.json [--tasks vision both]

Every cell is a full run of the task in its default sizes and settings, constant alpha/r, the projector at a fixed rank.
The seed SD is the standard deviation of a cell's final validation loss over seeds, pooled over cells. A main effect is
the spread of a part's mean loss by rank, the other part's ranks averaged out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from marslora.core.allocation import Allocation
from marslora.core.runs import Failure, Observation
from marslora.core.spec import DataSpec, MemberSpec, ModelSpec, PackSpec, TrainingSpec
from marslora.data import scenes
from marslora.models.embedded import embedded_folder

PROJECTOR_RANK = 16
NUM_SEEDS = 3


def members(task: scenes.Task, seed: int) -> Iterator[MemberSpec]:
    for vision in task.ranks:
        for language in task.ranks:
            yield MemberSpec(
                id=f"v{vision}.l{language}.s{seed}",
                allocation=Allocation.of(vision=vision, projector=PROJECTOR_RANK, language=language),
                data_examples=task.num_train,
                until_examples=task.training["examples"],
                seed=seed,
                order_seed=seed,
            )


def run(name: str, seed: int, folder: Path) -> dict[tuple[int, int], float]:
    """Final validation loss by (vision rank, language rank)."""
    from marslora.engine.worker import run_pack

    task = scenes.find(name)
    paths = scenes.ensure_task(name, folder / name)
    spec = PackSpec(
        id=f"{name}.{seed}",
        model=ModelSpec(path=str(embedded_folder())),
        data=DataSpec(train=(str(paths["train"]),), validation=(str(paths["validation"]),)),
        training=TrainingSpec(**{**task.training, "evaluations": 3}),
        full_examples=task.training["examples"],
        members=tuple(members(task, seed)),
        checkpoint_folder=str(folder / name / f"members{seed}"),
        cache_folder=str(folder / "cache"),
    )
    last: dict[str, float] = {}

    def emit(event: object) -> None:
        if isinstance(event, Failure):
            raise SystemExit(f"{event.pack}: {event.error}: {event.message}")
        if isinstance(event, Observation) and event.metric == "validation_loss":
            last[event.member] = event.value

    run_pack(spec, emit)
    return {(m.allocation["vision"], m.allocation["language"]): last[m.id] for m in spec.members}


def spread(values: list[float]) -> float:
    return max(values) - min(values)


def summary(ranks: tuple[int, ...], runs: list[dict[tuple[int, int], float]]) -> dict[str, object]:
    """Means, spreads and what they are in seed SDs."""
    cells = {cell: [one[cell] for one in runs] for cell in runs[0]}
    mean = {cell: statistics.fmean(losses) for cell, losses in cells.items()}
    sd = statistics.fmean(statistics.variance(losses) for losses in cells.values()) ** 0.5
    by_vision = [statistics.fmean(mean[v, other] for other in ranks) for v in ranks]
    by_language = [statistics.fmean(mean[other, r] for other in ranks) for r in ranks]
    best = min(mean, key=mean.__getitem__)
    return {
        "ranks": ranks,
        "losses": {f"vision={v} language={r}": losses for (v, r), losses in cells.items()},
        "mean_by_vision_then_language": [[mean[v, r] for r in ranks] for v in ranks],
        "seed_sd": sd,
        "best": f"vision={best[0]} language={best[1]}",
        "worst_minus_best_in_sd": spread(list(mean.values())) / sd,
        "vision_effect_in_sd": spread(by_vision) / sd,
        "language_effect_in_sd": spread(by_language) / sd,
        "largest_minus_best_in_sd": (mean[ranks[-1], ranks[-1]] - mean[best]) / sd,
    }


def show(name: str, result: dict[str, object], ranks: tuple[int, ...]) -> None:
    print(f"\n{name}: rows vision, columns language {ranks}")
    for rank, row in zip(ranks, result["mean_by_vision_then_language"], strict=True):
        print(f"{rank:4d} " + " ".join(f"{loss:.3f}" for loss in row))
    print(", ".join(f"{key} {value:.3g}" for key, value in result.items() if isinstance(value, float)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(scenes.TASKS))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--folder", type=Path, help="working folder; kept, so that a broken run can go on")
    given = parser.parse_args()
    results = json.loads(given.out.read_text()) if given.out.is_file() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        for name in given.tasks:
            start, task = time.perf_counter(), scenes.find(name)
            runs = [run(name, seed, folder) for seed in range(NUM_SEEDS)]
            results[name] = {
                **summary(task.ranks, runs),
                "training": dict(task.training),
                "num_train": task.num_train,
                "seconds": time.perf_counter() - start,
            }
            show(name, results[name], task.ranks)
            given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
