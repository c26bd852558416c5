"""Three learning rates at the smallest rank: does the law of settings then know the best rate of every other rank?

    python benchmarks/lora_sweeps.py SWEEPS.csv [--json benchmarks/lora_sweeps.json]

The file has finished runs of others: columns ``model, learning_rate, rank, test_nll``, LoRA with alpha held at 32. For
each model, the runs at its smallest rank with the rates nearest to 1e-4, 3e-4 and 1e-3 are given to the law as best
losses; for every rank the rate with the lowest predicted loss is taken, and its regret is the loss above that of the
best rate of this rank. A rate at scale alpha/r counts as one at scale 2 that is larger by the root of their ratio
(Chen, Villar and Hayou 2026). The rules of thumb are one rate for all models and ranks.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from marslora.core.allocation import Allocation
from marslora.core.setting import Setting
from marslora.laws import Measurements, fit_setting_law, make_features
from marslora.laws.setting_law import UNKNOWN_START

ALPHA, USUAL_SCALE = 32.0, 2.0
GIVEN_RATES = (1e-4, 3e-4, 1e-3)
NUM_STEPS = 780
CONSTANT_RATES = (2e-4, 3e-4, 5e-4)
Sweep = dict[tuple[int, float], float]
"""Loss by rank and learning rate."""


def read_sweeps(path: Path) -> dict[str, Sweep]:
    sweeps: dict[str, Sweep] = defaultdict(dict)
    with path.open() as file:
        for row in csv.DictReader(file):
            sweeps[row["model"]][int(row["rank"]), float(row["learning_rate"])] = float(row["test_nll"])
    return sweeps


def find_rates(sweep: Sweep, rank: int) -> list[float]:
    return sorted(rate for own, rate in sweep if own == rank)


def predict_losses(sweep: Sweep) -> dict[tuple[int, float], float]:
    """The predicted loss of every run of a sweep, from three runs at its smallest rank."""
    runs = sorted(sweep)
    settings = [
        Setting(allocation=Allocation.of(language=rank), learning_rate=rate * (ALPHA / rank / USUAL_SCALE) ** 0.5)
        for rank, rate in runs
    ]
    features = make_features(settings, ("language",), GIVEN_RATES[1], NUM_STEPS)
    smallest = runs[0][0]
    rates = find_rates(sweep, smallest)
    given = sorted({min(rates, key=lambda rate, wanted=wanted: abs(np.log(rate / wanted))) for wanted in GIVEN_RATES})
    index = np.array([runs.index((smallest, rate)) for rate in given])
    one = np.ones(len(index))
    loss = np.log([sweep[smallest, rate] for rate in given])
    measured = Measurements(index, 0 * one, loss, 0 * one, index, one, one, log_start=loss.max() + UNKNOWN_START)
    law = fit_setting_law(features, measured)
    predicted = law.weight_K @ law.mean_KC
    return dict(zip(runs, predicted.tolist(), strict=True))


def measure_regrets(sweep: Sweep, choose: dict[int, float]) -> list[float]:
    """Regret of a choice of rates by rank."""
    return [
        sweep[rank, rate] - min(sweep[rank, each] for each in find_rates(sweep, rank)) for rank, rate in choose.items()
    ]


def choose_constant(sweep: Sweep, wanted: float) -> dict[int, float]:
    ranks = sorted({rank for rank, _ in sweep})
    return {r: min(find_rates(sweep, r), key=lambda rate: abs(np.log(rate / wanted))) for r in ranks}


def choose_by_law(sweep: Sweep) -> dict[int, float]:
    predicted = predict_losses(sweep)
    ranks = sorted({rank for rank, _ in sweep})
    return {r: min(find_rates(sweep, r), key=lambda rate, r=r: predicted[r, rate]) for r in ranks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    sweeps = read_sweeps(given.sweeps)
    regrets = {"law of settings": [measure_regrets(sweep, choose_by_law(sweep)) for sweep in sweeps.values()]}
    for rate in CONSTANT_RATES:
        regrets[f"constant {rate:g}"] = [measure_regrets(s, choose_constant(s, rate)) for s in sweeps.values()]
    rows = {
        name: {"mean": float(np.mean(np.concatenate(each))), "worst": float(np.max(np.concatenate(each)))}
        for name, each in regrets.items()
    }
    for name, row in rows.items():
        print(f"{name}: mean regret {row['mean']:.4f} nats, worst {row['worst']:.4f}, {len(sweeps)} models")
    if given.json:
        given.json.write_text(json.dumps({"models": len(sweeps), "regret": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
