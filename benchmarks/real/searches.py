"""`marslora search` with its defaults on the real tasks, beside everything that was measured there.

    python benchmarks/real/searches.py [--real real-work] [--tasks stamps ...] [--json benchmarks/real/searches.json]

Rows, length, batch size and number format are those of the tables (`benchmarks/tables/real`, see
`benchmarks/tables/build.py`); ranks, learning rates, strategy and budget are the defaults. Studies are in
`real-work/studies`: run again, the script continues. Losses are lowest validation losses, in nats per answer token.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import marslora
from marslora.core.allocation import Allocation
from marslora.core.promise import check_promise
from marslora.core.setting import Setting
from marslora.replay.table import RunTable

TABLES = Path(__file__).parents[1] / "tables" / "real"
USUAL_RANK = 16


def search(table: RunTable, task: str, real: Path) -> dict[str, object]:
    """What the search chose, what it cost, and what it had predicted."""
    files = {split: str(real / "tasks" / task / f"{split}.jsonl") for split in ("train", "validation")}
    header = table.header
    decision = marslora.search(
        model=str(real / "model"), **files, max_examples=header.num_train, max_validation=header.num_validation,
        examples=header.full_examples, batch_size=header.batch_size, dtype="bfloat16", study=real / "studies" / task,
    )  # fmt: skip
    record, final = decision.record, decision.final
    assert final is not None
    promise = check_promise(record, final)
    return {
        "chosen": str(record.setting), "verdict": record.verdict,
        "summary": decision.summary.partition("\nAdapter:")[0],
        "p_best": record.chosen_candidate.p_best, "base_loss": final.base_validation_loss,
        "ended": final.reached_loss, "predicted": promise and promise.predicted.model_dump(),
        "is_inside": promise and promise.is_kept, "calibration_full_runs": record.calibration_full_runs,
        "seconds": record.calibration.seconds + final.cost.seconds,
        "effects": {effect.knob: [effect.verdict, effect.nats.model_dump()] for effect in record.effects},
    }  # fmt: skip


def summarise(table: RunTable) -> dict[str, object]:
    """The best setting of a table, and what rules without any search get."""
    header = table.header
    lowest = {run.setting: min(run.validation_loss) for run in table if run.data_examples == header.num_train}
    ranks = {part: header.space.ladder(part) for part in header.space.parts}
    largest = Allocation.of({part: ladder[-1] for part, ladder in ranks.items()})
    usual = Allocation.of({part: min(USUAL_RANK, ladder[-1]) for part, ladder in ranks.items()})
    middle = header.learning_rate

    def find_best(settings: list[Setting]) -> dict[str, object]:
        best = min(settings, key=lowest.__getitem__)
        return {"setting": str(best), "loss": lowest[best]}

    def list_best(part: str) -> dict[str, object]:
        return {str(r): find_best([s for s in lowest if s.allocation.get(part) == r]) for r in ranks.get(part, ())}

    return {
        "runs": len(table), "best": find_best(list(lowest)), "worst": max(lowest.values()),
        "largest_ranks_middle_rate": lowest[Setting(allocation=largest, learning_rate=middle)],
        "rank_16_by_rate": {str(s.learning_rate): loss for s, loss in lowest.items() if s.allocation == usual},
        "best_by_vision_rank": list_best("vision"), "best_by_language_rank": list_best("language"),
        "seconds_a_run": sum(run.seconds for run in table) / len(table),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, default=Path("real-work"))
    parser.add_argument("--tasks", nargs="+", default=["stamps", "textile", "translation"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results = json.loads(given.json.read_text()) if given.json and given.json.exists() else {}
    for task in given.tasks:
        table = RunTable.load(TABLES / f"real_{task}.parquet")
        results[task] = {"table": summarise(table), "search": search(table, task, given.real)}
        print(json.dumps({task: results[task]}, indent=1), flush=True)
        if given.json:
            given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
