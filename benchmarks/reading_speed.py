"""Time and memory of reading rows of text: the check, a study's first reading of them, and a worker's.

    OMP_NUM_THREADS=1 python benchmarks/reading_speed.py [--rows 1000000] [--out benchmarks/reading_speed.json]

Each is a process of its own. Memory is the highest beyond that of the imports. The study has --max-examples 1000.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

STAGES = ("data check", "first reading", "worker")
MAX_EXAMPLES = 1000


def write_rows(path: Path, num_rows: int) -> None:
    """Rows of one question and one answer, all different."""
    with path.open("w") as file:
        for row in range(num_rows):
            asked = f"What is the color of thing {row}, and how many of {row * 7919 % 1000} are there?"
            answer = f"It is blue, and there are {row % 17}."
            turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": turns}) + "\n")


def make_stage(stage: str, rows: Path, cache: Path) -> Callable[[], None]:
    """The call that is measured; everything that it imports is imported."""
    from transformers import AutoProcessor

    from marslora.core.spec import DataSpec
    from marslora.data.check import check_data
    from marslora.data.rows import load_encoded_splits
    from marslora.demo.model import embedded_folder

    processor = AutoProcessor.from_pretrained(embedded_folder())
    data = DataSpec(train=(str(rows),), max_examples=MAX_EXAMPLES)
    if stage == "data check":
        return lambda: print(check_data([str(rows)]).num_rows)
    return lambda: print(len(load_encoded_splits(data, processor, str(cache)).train))


def measure(stage: str, rows: Path, num_rows: int, cache: Path) -> dict[str, float]:
    """Run one stage in this process."""
    run = make_stage(stage, rows, cache)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    kilobytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1.024
    return {
        "microseconds_a_row": round(1e6 * seconds / num_rows, 2),
        "kilobytes_a_row": round(kilobytes / num_rows, 3),
        "megabytes": round(kilobytes / 1000, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, help="where the result is also written")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        folder = arguments.folder
        found = measure(arguments.stage, folder / "rows.jsonl", arguments.rows, folder / "cache")
        (folder / "found.json").write_text(json.dumps(found))
        return
    found = {"rows": arguments.rows, "max_examples": MAX_EXAMPLES, "machine": platform.machine()}
    with tempfile.TemporaryDirectory() as name:
        write_rows(Path(name) / "rows.jsonl", arguments.rows)
        for stage in STAGES:
            command = [sys.executable, __file__, "--rows", str(arguments.rows), "--stage", stage, "--folder", name]
            subprocess.run(command, check=True)
            found[stage] = json.loads((Path(name) / "found.json").read_text())
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
