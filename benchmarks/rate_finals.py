"""How early the best learning rate is told, on tables of finished runs.

    python benchmarks/rate_finals.py [TABLES...] [--json benchmarks/rate_finals.json]

For every table and seed: the largest ranks at all learning rates of the ladder. The rate that has the lowest validation
loss at a share of a full run, while rates are still constant, is judged by how far its full run ends above that of the
best of these rates, in nats per answer token.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from marslora.replay.table import FinishedRun, RunTable, find_tables

HERE = Path(__file__).parent
TABLES = [HERE / "tables" / name for name in ("rates", "small", "null_small", "parts")]
SHARES = (0.1, 0.25, 0.4, 0.5)
"""Shares of a full run; the first regular point from there on is looked at."""
NEAR = 0.02
"""Nats within which a rate is as good as the best."""


def list_contests(tables: list[RunTable]) -> Iterator[tuple[str, int, int, list[FinishedRun]]]:
    """The name, the seed, the length of a full run and the runs of the largest ranks at every rate."""
    for table in tables:
        header = table.header
        largest = {part: header.space.ladder(part)[-1] for part in header.space.parts}
        for seed in header.seeds:
            own = [run for run in table if run.seed == seed and run.data_examples == header.num_train]
            plain = [run for run in own if not run.part_learning_rates and run.allocation.as_dict() == largest]
            yield header.name, seed, header.full_examples, plain


def measure_regret(runs: list[FinishedRun], full: int, share: float) -> float:
    """How far the run that leads at a share of a full run ends above the best one, each at its best point."""
    at = next(index for index, examples in enumerate(runs[0].examples) if examples >= share * full)
    leader = min(runs, key=lambda run: run.validation_loss[at])
    return min(leader.validation_loss) - min(min(run.validation_loss) for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", type=Path, default=TABLES)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    contests = list(list_contests(find_tables(given.tables)))
    found = {
        share: {f"{name}, seed {seed}": measure_regret(runs, full, share) for name, seed, full, runs in contests}
        for share in SHARES
    }
    for share, regrets in found.items():
        near = sum(regret <= NEAR for regret in regrets.values())
        mean = sum(regrets.values()) / len(regrets)
        print(f"from {share} on: near the best in {near} of {len(regrets)}, mean regret {mean:.3f}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
