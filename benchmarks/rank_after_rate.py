"""Does rank matter once the learning rate is right? Measured on tables of ranks and learning rates.

    python benchmarks/rank_after_rate.py TABLES... [--json benchmarks/rank_after_rate.json]

For every table: how far the loss is spread by the learning rate (ranks at their best), by the ranks (rate at its best
for every allocation), by training a part at all; how the best rate moves with the rank of the most important part; what
rank 16 everywhere loses at the best rate; and whether balance helps: the correlation between the loss that an
allocation reaches at its best rate and how unequal its ranks are, after both lost the effects of the single ranks.
All losses are the best of a full run, means over the seeds of the table, in nats per answer token.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from marslora.core.allocation import Allocation
from marslora.core.setting import Setting
from marslora.replay.simulate import Simulation
from marslora.replay.table import RunTable, find_tables

USUAL_RANK = 16


def describe(table: RunTable) -> dict[str, object]:
    """Every figure of one table."""
    simulation = Simulation(table, table.header.seeds[0])
    loss, space = simulation.truth.loss, table.header.space
    parts = space.searched
    by_rate = _by_allocation(loss)
    best_at = {allocation: min(own, key=own.__getitem__) for allocation, own in by_rate.items()}
    tuned = {allocation: by_rate[allocation][rate] for allocation, rate in best_at.items()}
    all_trained = {allocation: value for allocation, value in tuned.items() if all(allocation[p] for p in parts)}
    rank_spread = {p: _spread(_profile(tuned, lambda a, p=p: a[p] or None)) for p in parts}
    optional = [p for p in parts if space.ladder(p)[0] == 0]
    main = max(rank_spread, key=rank_spread.__getitem__)
    return {
        "table": table.header.name,
        "seed_sd": simulation.truth.seed_sd,
        "best": min(loss.values()),
        "rate_spread": _spread(_profile(loss, lambda s: s.learning_rate)),
        "rank_spread": rank_spread,
        "training_spread": {p: _spread(_profile(tuned, lambda a, p=p: a[p] > 0)) for p in optional},
        "rank_spread_at_middle_rate": _spread_at(loss, table.header.learning_rate),
        "rank_spread_tuned": _spread(all_trained),
        "usual_rank_tuned_regret": _find_usual(loss) - min(loss.values()),
        "main_part": main,
        "best_rate_exponent": _fit_exponent(best_at, main, parts),
        "imbalance": _measure_imbalance(all_trained, parts),
    }


def _by_allocation(loss: Mapping[Setting, float]) -> dict[Allocation, dict[float, float]]:
    own: dict[Allocation, dict[float, float]] = {}
    for setting, value in loss.items():
        own.setdefault(setting.allocation, {})[setting.learning_rate or 0.0] = value
    return own


def _profile(loss: Mapping[object, float], value_of: Callable[[object], object]) -> dict[object, float]:
    """The least loss for each value of one choice, everything else at its best."""
    least: dict[object, float] = {}
    for each, value in loss.items():
        key = value_of(each)
        if key is not None:
            least[key] = min(value, least.get(key, np.inf))
    return least


def _spread(loss: Mapping[object, float]) -> float:
    return max(loss.values()) - min(loss.values()) if loss else 0.0


def _spread_at(loss: Mapping[Setting, float], rate: float) -> float:
    own = {
        s.allocation: value
        for s, value in loss.items()
        if s.learning_rate == rate and min(r for _, r in s.allocation.ranks)
    }
    return _spread(own)


def _find_usual(loss: Mapping[Setting, float]) -> float:
    """The loss of rank 16 (or the nearest) everywhere at its best rate."""

    def distance(allocation: Allocation) -> float:
        return sum(np.log2(max(rank, 0.5) / USUAL_RANK) ** 2 for _, rank in allocation.ranks)

    nearest = min((setting.allocation for setting in loss), key=distance)
    return min(value for setting, value in loss.items() if setting.allocation == nearest)


def _fit_exponent(best_at: Mapping[Allocation, float], part: str, parts: tuple[str, ...]) -> float:
    """Slope of the log of the best rate against the log rank of a part, by least squares over allocations."""
    pairs = [(np.log(a[part]), np.log(rate)) for a, rate in best_at.items() if all(a[p] for p in parts)]
    x, y = np.array(pairs).T
    return float(np.polyfit(x, y, 1)[0])


def _measure_imbalance(tuned: Mapping[Allocation, float], parts: tuple[str, ...]) -> float | None:
    """Correlation of the loss with the distance of the log ranks, after both lost the effects of the single ranks."""
    if len(parts) != 2 or len(tuned) < 9:
        return None
    log_rank = np.array([[np.log2(a[p]) for p in parts] for a in tuned])
    design = np.concatenate([(log_rank[:, [m]] == np.unique(log_rank[:, m])).astype(float) for m in (0, 1)], axis=1)
    apart, loss = np.abs(log_rank[:, 0] - log_rank[:, 1]), np.array(list(tuned.values()))
    rest = [each - design @ np.linalg.lstsq(design, each, rcond=None)[0] for each in (apart, loss)]
    return float(np.corrcoef(*rest)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = [describe(table) for table in find_tables(given.tables) if len(table.header.learning_rates) > 1]
    for row in rows:
        print(json.dumps(row, default=lambda value: round(float(value), 4)))
    for key in ("rate_spread", "rank_spread_at_middle_rate", "rank_spread_tuned", "usual_rank_tuned_regret"):
        values = [float(row[key]) for row in rows]  # type: ignore[arg-type]
        print(f"{key}: median {np.median(values):.4f}, from {min(values):.4f} to {max(values):.4f}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
