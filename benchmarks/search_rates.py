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
from typing import Any

import numpy as np

from marslora.core.decision import DecisionRecord
from marslora.replay.ranking import bootstrap_mean
from marslora.replay.searchers import Searcher, standard_searchers
from marslora.replay.simulate import MissingRunError, Simulation, replay_strategy
from marslora.replay.table import RunTable, find_tables
from marslora.strategies._knobs import ALIKE_SHARE, measure_effects

HERE = Path(__file__).parent
DRAWS = 5
"""Seeds of each search on each table and seed."""
HELD = ("coverage", "chosen_inside", "in_set", "set_size", "p_best", "is_best", "effects_inside")
"""How the predictions of a search held, if it makes any."""
NUM_BINS = 10
"""Bins of P(best) in which the expected calibration error is measured."""
LARGE_EFFECT = 10
"""Standard deviations between seeds from which an effect is large."""
CLAIMS = (
    "calibration_error",
    "said_matters",
    "of_them_true",
    "said_does_not",
    "of_them_false",
    "large_effects",
    "of_them_named",
)
"""What is counted over all replays of a search."""
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
        if len(decision.candidates) == len(truth.loss):  # not of ranks alone
            row |= {"p_best_all": [candidate.p_best for candidate in decision.candidates]}
            row |= {"best": [candidate.setting for candidate in decision.candidates].index(truth.best)}
            row |= judge_effects(simulation, decision)
    return [row]


def judge_effects(simulation: Simulation, decision: DecisionRecord) -> dict[str, object]:
    """What was said of every choice, and what is true by the means over the table's seeds."""
    truth, problem = simulation.truth, simulation.problem
    starts = [entry.validation_loss[0] for entry in simulation.table]
    loss_1C = np.array([[truth.loss[setting] for setting in problem.candidates()]])
    gain = float(np.median(starts)) - float(loss_1C.min())
    true = {effect.knob: effect.nats.value for effect in measure_effects(problem, (), loss_1C)}
    said = [(effect.knob, effect.verdict, true[effect.knob]) for effect in decision.effects]
    inside = [effect.nats.low <= true[effect.knob] <= effect.nats.high for effect in decision.effects]
    claims = [
        {
            "knob": knob,
            "said": verdict,
            "matters": nats > ALIKE_SHARE * gain,
            "large": nats > LARGE_EFFECT * truth.seed_sd,
        }
        for knob, verdict, nats in said
    ]
    return {"effects_inside": float(np.mean(inside)), "claims": claims}


def count_claims(rows: list[dict[str, Any]]) -> dict[str, object]:
    """How often it was right that a choice matters, or does not, and how many of the large effects were named."""
    claims = [claim for row in rows for claim in row["claims"]]
    said = {
        verdict: [c["matters"] for c in claims if c["said"] == verdict] for verdict in ("matters", "does not matter")
    }
    large = [claim["said"] == "matters" for claim in claims if claim["large"]]
    return {
        "said_matters": len(said["matters"]), "of_them_true": sum(said["matters"]),
        "said_does_not": len(said["does not matter"]), "of_them_false": sum(said["does not matter"]),
        "large_effects": len(large), "of_them_named": sum(large), "effects": len(claims),
    }  # fmt: skip


def measure_calibration_error(rows: list[dict[str, Any]]) -> float:
    """The expected calibration error of P(best), all candidates of all replays in `NUM_BINS` bins."""
    p_best = np.concatenate([row["p_best_all"] for row in rows])
    is_best = np.concatenate([np.arange(len(row["p_best_all"])) == row["best"] for row in rows])
    bins = np.minimum((p_best * NUM_BINS).astype(int), NUM_BINS - 1)
    gaps = [abs(p_best[bins == k].mean() - is_best[bins == k].mean()) * (bins == k).mean() for k in set(bins)]
    return float(sum(gaps))


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, object]]:
    """Every setting of every family: mean regret with its interval, mean cost, and how its predictions held."""
    groups: dict[tuple[object, object], list[dict[str, object]]] = defaultdict(list)
    for row in rows:
        groups[row["family"], row["setting"]].append(row)
    summary = []
    for (family, setting), own in groups.items():
        regret = bootstrap_mean(np.array([row["regret"] for row in own]), [(row["table"], row["seed"]) for row in own])
        mean = {name: float(np.mean([row[name] for row in own])) for name in ("cost", "tied", "seconds")}  # type: ignore[arg-type]
        held: dict[str, object] = {n: float(np.mean([row[n] for row in own])) for n in HELD if n in own[0]}  # type: ignore[arg-type]
        if "claims" in own[0]:
            held |= {"calibration_error": measure_calibration_error(own), **count_claims(own)}
        interval = {"regret": regret.value, "low": regret.low, "high": regret.high}
        summary.append({"family": family, "setting": setting, **interval, **mean, **held})
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", type=Path, default=[HERE / "tables" / "rates"])
    parser.add_argument("--only", help="Only the families whose names begin like this.")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for table in find_tables(given.tables):
        for searcher in list_searchers():
            if given.only and not searcher.family.startswith(given.only):
                continue
            draws = 1 if searcher.strategy in ("uniform", "rate_sweep") else DRAWS
            rows += [row for s in table.header.seeds for d in range(draws) for row in replay(table, s, searcher, d)]
        print(table.header.name, flush=True)
    summary = summarise(rows)
    for row in sorted(summary, key=lambda row: str(row["family"])):
        name = f"{row['family']} ({row['setting']})" if row["setting"] else str(row["family"])
        text = f"{name:70s} cost {row['cost']:.2f}  regret {row['regret']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        extra = "".join(f"  {name} {value:.3g}" for name, value in row.items() if name in HELD or name in CLAIMS)
        print(text + extra)
    if given.json:
        kept = [{name: value for name, value in row.items() if name not in ("p_best_all", "best")} for row in rows]
        given.json.write_text(json.dumps({"summary": summary, "replays": kept}, indent=1) + "\n")


if __name__ == "__main__":
    main()
