"""Searches for ranks and learning rate, replayed on finished runs of tasks that no constant has seen.

    python benchmarks/search_rates.py [--tables benchmarks/tables/rates] [--json benchmarks/search_rates.json]

Every standard search (`marslora.replay.searchers`) is replayed on every seed of every table. `mars` decides by
constants that were learnt without the task of the table (`benchmarks/left_out`, see `fit_setting_law.py`). All costs
are counted: training and validation of calibration and of the final run, in full runs with their validations. Searches
are repeated with `DRAWS` seeds. Regret is the best loss of a full run of the choice above that of the best setting,
means over the seeds of the table, in nats per answer token, with a 90 % interval over tables and seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from marslora.replay.ranking import bootstrap_mean
from marslora.replay.searchers import Searcher, standard_searchers
from marslora.replay.simulate import MissingRunError, Simulation, replay_strategy
from marslora.replay.table import RunTable, find_tables

HERE = Path(__file__).parent
DRAWS = 5
"""Seeds of each search on each table and seed."""
HELD = ("coverage", "chosen_inside", "in_set", "set_size", "p_best", "is_best")
"""How the predictions of a search held, if it makes any."""
LARGEST = "largest ranks, middle rate"
"""The family that trains the largest ranks everywhere at the middle of the ladder of rates, and measures nothing."""


def list_searchers() -> list[Searcher]:
    uniform = [Searcher(f"rank {rank}, middle rate", "uniform", {"rank": rank}) for rank in (16,)]
    return [*standard_searchers(), *uniform, Searcher(LARGEST, "uniform", {"rank": 4096})]


def replay(table: RunTable, seed: int, searcher: Searcher, draw: int) -> list[dict[str, object]]:
    """One search on one seed of a table; nothing if the table lacks a run that it asks for (single parts alone)."""
    simulation = Simulation(table, seed, searcher.budget)
    simulation.__dict__["problem"] = replace(simulation.problem, seed=draw)
    task = table.header.name.partition("_")[0]
    options = dict(searcher.options)
    if searcher.strategy == "mars":
        options["constants"] = str(HERE / "left_out" / f"{task}.json")
    began = time.process_time()
    try:
        outcome = replay_strategy(replace(searcher, options=options).make_strategy(), simulation)
    except MissingRunError:
        return []
    decision, truth = outcome.decision, simulation.truth
    row: dict[str, object] = {
        "table": table.header.name, "seed": seed, "draw": draw, "family": searcher.family, "setting": searcher.setting,
        "regret": outcome.regret, "cost": outcome.cost, "chosen": str(decision.setting), "verdict": decision.verdict,
        "tied": decision.setting in truth.find_ties(), "seconds": time.process_time() - began,
    }  # fmt: skip
    predicted = [candidate.predicted_loss for candidate in decision.candidates]
    if all(predicted):
        ended = [simulation._find_lowest_loss(candidate.setting, seed) for candidate in decision.candidates]
        inside = [each.low <= loss <= each.high for each, loss in zip(predicted, ended, strict=True) if each]
        row |= {"coverage": float(np.mean(inside)), "in_set": truth.best in decision.plausible}
        row |= {"set_size": len(decision.plausible), "p_best": decision.chosen_candidate.p_best}
        chosen = [candidate.setting for candidate in decision.candidates].index(decision.setting)
        row |= {"chosen_inside": inside[chosen], "is_best": decision.setting == truth.best}
    return [row]


def summarise(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Every setting of every family: mean regret with its interval, mean cost, and how its predictions held."""
    groups: dict[tuple[object, object], list[dict[str, object]]] = defaultdict(list)
    for row in rows:
        groups[row["family"], row["setting"]].append(row)
    summary = []
    for (family, setting), own in groups.items():
        regret = bootstrap_mean(np.array([row["regret"] for row in own]), [(row["table"], row["seed"]) for row in own])
        mean = {name: float(np.mean([row[name] for row in own])) for name in ("cost", "tied", "seconds")}  # type: ignore[arg-type]
        held = {n: float(np.mean([row[n] for row in own])) for n in HELD if n in own[0]}  # type: ignore[arg-type]
        interval = {"regret": regret.value, "low": regret.low, "high": regret.high}
        summary.append({"family": family, "setting": setting, **interval, **mean, **held})
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", type=Path, default=[HERE / "tables" / "rates"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for table in find_tables(given.tables):
        for searcher in list_searchers():
            draws = 1 if searcher.strategy in ("uniform", "rate_sweep") else DRAWS
            rows += [row for s in table.header.seeds for d in range(draws) for row in replay(table, s, searcher, d)]
        print(table.header.name, flush=True)
    summary = summarise(rows)
    for row in sorted(summary, key=lambda row: str(row["family"])):
        name = f"{row['family']} ({row['setting']})" if row["setting"] else str(row["family"])
        text = f"{name:70s} cost {row['cost']:.2f}  regret {row['regret']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        extra = "".join(f"  {name} {row[name]:.2f}" for name in HELD if name in row)
        print(text + extra)
    if given.json:
        given.json.write_text(json.dumps({"summary": summary, "replays": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
