"""Are the embedded tasks what their names say? Read off the tables of finished runs: 4x4 ranks, three seeds each.

    python benchmarks/embedded_tasks.py [--out benchmarks/embedded_tasks.json]

The seed SD is the standard deviation of a cell's final validation loss over seeds, pooled over cells. A part's main
effect is the spread of its mean loss by rank, the other part's ranks averaged out.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from marslora.demo.tasks import TASKS
from marslora.replay.table import RunTable

TABLES = Path(__file__).parent / "tables"


def final_losses(table: RunTable) -> dict[tuple[int, int], list[float]]:
    """Final validation loss of every seed by (vision rank, language rank)."""
    found: dict[tuple[int, int], list[float]] = {}
    for entry in table:
        if entry.data_examples == table.header.num_train and entry.allocation["projector"]:
            cell = entry.allocation["vision"], entry.allocation["language"]
            found.setdefault(cell, []).append(entry.validation_loss[-1])
    return found


def spread(values: list[float]) -> float:
    return max(values) - min(values)


def summary(table: RunTable) -> dict[str, object]:
    """Means, spreads, and what they are in seed SDs."""
    cells, ranks = final_losses(table), table.header.space.ladder("vision")
    mean = {cell: statistics.fmean(losses) for cell, losses in cells.items()}
    sd = statistics.fmean(statistics.variance(losses) for losses in cells.values()) ** 0.5
    by_vision = [statistics.fmean(mean[v, other] for other in ranks) for v in ranks]
    by_language = [statistics.fmean(mean[other, r] for other in ranks) for r in ranks]
    best = min(mean, key=mean.__getitem__)
    return {
        "mean_by_vision_then_language": [[mean[v, r] for r in ranks] for v in ranks],
        "seed_sd": sd,
        "best": f"vision={best[0]} language={best[1]}",
        "worst_minus_best_in_sd": spread(list(mean.values())) / sd,
        "vision_effect_in_sd": spread(by_vision) / sd,
        "language_effect_in_sd": spread(by_language) / sd,
        "largest_minus_best_in_sd": (mean[ranks[-1], ranks[-1]] - mean[best]) / sd,
    }


def show(name: str, result: dict[str, object], ranks: tuple[int, ...]) -> None:
    print(f"\n{name}: rows vision, columns language {ranks}; best {result['best']}")
    for rank, row in zip(ranks, result["mean_by_vision_then_language"], strict=True):
        print(f"{rank:4d} " + " ".join(f"{loss:.3f}" for loss in row))
    print(", ".join(f"{key} {value:.3g}" for key, value in result.items() if isinstance(value, float)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    results = {}
    for name in TASKS:
        table = RunTable.load(TABLES / f"{name}.parquet")
        results[name] = summary(table)
        show(name, results[name], table.header.space.ladder("vision"))
    given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
