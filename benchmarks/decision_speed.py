"""CPU time and memory of a decision on 500 and on 2,000 runs, one strategy and one number of runs in each process.

    OMP_NUM_THREADS=1 python benchmarks/decision_speed.py [--strategy mars] [--out benchmarks/decision_speed.json]

The runs are simulated: every setting of ranks (and learning rate) is trained with as many seeds as are needed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

STRATEGIES, COUNTS = ("ranks_only", "rate_sweep", "successive_halving"), (500, 2000)
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)


def decide(name: str, count: int) -> dict[str, object]:
    """Decide in this process; CPU seconds, and MB beyond what the imports took."""
    from marslora import strategies
    from marslora.core import plugins
    from marslora.core.spec import MemberSpec
    from marslora.strategies import AbstractStrategy
    from marslora.testing.toy_training import CLEAR

    strategy = plugins.load(strategies, name, AbstractStrategy)()
    toy = dataclasses.replace(CLEAR, num_validation=64)
    problem = toy.problem(learning_rates=() if name == "ranks_only" else RATES)
    settings = list(problem.candidates())
    runs = []
    for number in range(count):
        setting = settings[number % len(settings)]
        member = MemberSpec(
            id=f"run{number}",
            allocation=setting.allocation,
            learning_rate=setting.learning_rate,
            until_examples=problem.full_examples // 4 // 16 * 16,
            data_examples=problem.num_train,
            seed=number // len(settings),
        )
        runs.append(toy.train(member, problem.full_examples))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    decision = strategy.decide(problem, runs)
    return {
        "cpu_seconds": round(time.process_time() - begun, 2),
        "more_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024),
        "mb_in_all": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "verdict": decision.verdict,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", help="only this one; `mars` takes minutes")
    parser.add_argument("--runs", type=int, help="decide in this process, on so many runs")
    parser.add_argument("--out", type=Path, help="where the result is also written")
    options = parser.parse_args()
    if options.runs:
        print(json.dumps(decide(options.strategy, options.runs)))
        return
    found: dict[str, object] = {"machine": platform.machine()}
    for name in [options.strategy] if options.strategy else STRATEGIES:
        for count in COUNTS:
            command = [sys.executable, __file__, "--strategy", name, "--runs", str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[f"{name}, {count} runs"] = json.loads(done.stdout)
            print(f"{name}, {count} runs: {done.stdout.strip()}", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
