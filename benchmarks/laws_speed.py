"""Time of 500 bootstrap fits of the performance law on 48 observations, one core.

    OMP_NUM_THREADS=1 python benchmarks/laws_speed.py [--out benchmarks/laws_speed.json]

The observations: 8 allocations of two parts at 6 points of time each, noise of 1 %. Every form tried is counted.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np

from marslora.core.decision import LawPoint
from marslora.laws.performance import PerformanceLaw

NUM_BOOTSTRAPS, ROUNDS = 500, 5


def observations() -> list[LawPoint]:
    """A multiplicative law of two ranks and time, with noise."""
    rng = np.random.default_rng(0)
    points = []
    for one in (2, 32):
        for two in (2, 8, 16, 32):
            for t in np.geomspace(50, 800, 6):
                loss = (0.5 + 1.2 * (one / 8) ** -0.05 * (two / 8) ** -0.12 * (t / 200) ** -0.4) * np.exp(
                    0.01 * rng.normal()
                )
                inputs = {"one": one, "two": two, "data": t, "params": one + 3.0 * two}
                inputs["imbalance"] = abs(np.log(one / two))
                points.append(LawPoint(run=f"{one}-{two}", inputs=inputs, measured=loss, predicted=float("nan")))
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where the result is also written")
    out = parser.parse_args().out
    points, law, seconds = observations(), PerformanceLaw(PerformanceLaw.Config(num_bootstraps=NUM_BOOTSTRAPS)), []
    for _ in range(ROUNDS):
        start = time.process_time()
        fit = law.fit(points, "allocation")
        seconds.append(time.process_time() - start)
        assert (fit.num_bootstraps, fit.status) == (NUM_BOOTSTRAPS, "converged")
    found = {
        "observations": len(points),
        "bootstraps": NUM_BOOTSTRAPS,
        "cpu_seconds": {
            "median": round(statistics.median(seconds), 3),
            "lowest": round(min(seconds), 3),
            "highest": round(max(seconds), 3),
        },
        "machine": platform.machine(),
    }
    print(json.dumps(found))
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
