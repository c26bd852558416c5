"""Rules that measure nothing: which setting would one take on a new task, having seen the others?

    python benchmarks/fixed_rules.py [--tables benchmarks/tables/rates] [--json benchmarks/fixed_rules.json]

For each task left out, the setting with the least mean regret on the other tables is taken, and its regret on the table
of this task is printed. The tables must have the same settings. Regret is as in `search_rates.py`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from marslora.replay.simulate import Simulation
from marslora.replay.table import find_tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", type=Path, default=[Path(__file__).parent / "tables" / "rates"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    tables = find_tables(given.tables)
    simulations = [Simulation(table, table.header.seeds[0]) for table in tables]
    settings = simulations[0].problem.candidates()
    regret_TC = np.array([[each.truth.regret(setting) for setting in settings] for each in simulations])
    rows = []
    for number, table in enumerate(tables):
        mean_C = np.delete(regret_TC, number, axis=0).mean(axis=0)
        picked = int(mean_C.argmin())
        rows.append(
            {"left_out": table.header.name, "setting": str(settings[picked]), "regret": regret_TC[number, picked]}
        )
        print(f"{table.header.name}: {settings[picked]}, regret {regret_TC[number, picked]:.3f}")
    print(f"mean {np.mean([row['regret'] for row in rows]):.3f}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
