"""Inject every fault that has a test, and write what was survived to docs/reliability.md.

    python scripts/reliability.py [--only WORD]    # an hour; with --only, the faults whose name has the word

The counts of earlier runs are kept in docs/reliability.json. A test that injects a fault several times says so with
``record_property("injected", n)``; any other counts once for each of its parameters. What is skipped is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
COUNTS, PAGE = ROOT / "docs" / "reliability.json", ROOT / "docs" / "reliability.md"
HEAD = """# Reliability

What may go wrong with a study, what is promised, and how often it was made to go wrong in tests and came out as
promised. `python scripts/reliability.py` runs these tests and writes this page; a row that says "not run" has not been
run since its tests changed. All of it is on one machine and with small models.

| fault | promised | injected | survived |
|---|---|---:|---:|
"""


class Fault(NamedTuple):
    """A kind of fault, and the tests that inject it."""

    name: str
    promise: str
    tests: tuple[str, ...]


UNIT = "tests/unit/"
REAL_SPACE = "test_in_a_real_address_space_the_steps_are_split_until_they_fit"
FAULTS = (
    Fault(
        "the process is killed before one of its durable operations: each of them in turn",
        "the same command ends bit for bit as if nothing had been",
        (f"{UNIT}test_kill_points.py",),
    ),
    Fault(
        "`kill -9` while real runs are trained, in calibration and in the final run",
        "the same decision and adapter",
        ("tests/end_to_end/test_resume.py::test_kill_nine_changes_nothing",),
    ),
    Fault(
        "Ctrl-C and SIGTERM, with and without workers",
        "a checkpoint, exit code 130 or 143, no process left, the same result afterwards",
        (
            "tests/end_to_end/test_resume.py::test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on",
            f"{UNIT}test_stopping.py",
        ),
    ),
    Fault(
        "a worker is killed, a pack fails or diverges",
        "trained again at once; what is still missing is said first and exits with 3",
        (f"{UNIT}test_missing_runs.py",),
    ),
    Fault(
        "an artifact is cut, emptied or overwritten; the disk is full; the folder is read-only",
        "derived ones are made again, others are named with a way to go on",
        (f"{UNIT}test_damage.py",),
    ),
    Fault(
        "study, model and rows are moved, renamed, or replaced by others",
        "nothing is trained again; other content is another study",
        (f"{UNIT}test_known_by_content.py",),
    ),
    Fault(
        "two processes work on one study, on one machine or two",
        "one of them; the other is told which; an owner that is gone is replaced",
        (f"{UNIT}store/test_storage_lock.py",),
    ),
    Fault(
        "threads and processes share an Optuna study, and some are killed inside a trial",
        "no run is trained twice, none is left behind",
        (f"{UNIT}test_optuna_side_by_side.py",),
    ),
    Fault(
        "memory runs out: reported by every library there is, and in a real address space",
        "steps and packs are split; what does not fit alone says what takes less",
        (f"{UNIT}core/test_out_of_memory.py", f"{UNIT}engine/test_memory.py::{REAL_SPACE}"),
    ),
    Fault(
        "wrong command lines, calls and configurations",
        "one line, exit code 2, nothing read or left behind",
        ("tests/bad_input",),
    ),
    Fault(
        "strangers' adapters, studies and plans that name code, pickles, patterns that match forever",
        "nothing is imported or run; refused in a second",
        (f"{UNIT}methods/test_strangers.py",),
    ),
    Fault(
        "paths of rows that leave their folder; rows and paths that steer a terminal",
        "refused without `--allow-outside`; only shown",
        (f"{UNIT}data/test_outside.py", f"{UNIT}cli/test_console.py"),
    ),
    Fault(
        "a final run on two processes, of which one sees no picture in a step, with each of five adapters",
        "trains what one process does",
        (f"{UNIT}finetune/test_methods.py::test_two_processes_train_rows_of_which_few_have_a_picture",),
    ),
    Fault(
        "a node of a Ray cluster is killed, in calibration and in the final run",
        "the same decision and adapter as without a cluster",
        ("tests/end_to_end/test_ray.py",),
    ),
    Fault(
        "a launch that divides the model into pieces; a model larger than the memory",
        "refused before anything is read",
        (f"{UNIT}finetune/test_launch.py",),
    ),
)


def inject(fault: Fault) -> tuple[int, int]:
    """(injected, survived): run the tests of a fault."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.xml")
        options = ["-q", "-p", "no:cacheprovider", "-o", "junit_family=legacy", f"--junitxml={path}"]
        command = [sys.executable, "-m", "pytest", *options, *fault.tests]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": _paths()})
        cases = ElementTree.parse(path).iter("testcase")
        counted = [_count(case) for case in cases if case.find("skipped") is None]
    return sum(each for each, _ in counted), sum(each for each, is_good in counted if is_good)


def _count(case: ElementTree.Element) -> tuple[int, bool]:
    """(how often a test injected its fault, whether it passed)."""
    injected = [each.get("value") for each in case.iter("property") if each.get("name") == "injected"]
    return int(injected[0] or 1) if injected else 1, case.find("failure") is None and case.find("error") is None


def _paths() -> str:
    return os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])


def write_page(counts: dict[str, list[int]]) -> None:
    """Write the page from the counts of each fault."""
    rows = []
    for fault in FAULTS:
        injected, survived = counts.get(fault.name, ("not run", ""))
        rows.append(f"| {fault.name} | {fault.promise} | {injected} | {survived} |\n")
    PAGE.write_text(HEAD + "".join(rows))


def main() -> int:
    """Run the chosen tests and write the page; 1 if something was not survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", metavar="WORD")
    only = parser.parse_args().only
    for fault in FAULTS:
        if only in fault.name and (found := inject(fault))[0]:  # 0 if all was skipped, for lack of an extra
            COUNTS.write_text(json.dumps({**_read_counts(), fault.name: list(found)}, indent=2) + "\n")
    write_page(counts := _read_counts())
    return any(injected != survived for injected, survived in counts.values())


def _read_counts() -> dict[str, list[int]]:
    """What is known of each fault; read anew, since another process may inject others."""
    counts: dict[str, list[int]] = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    return {fault.name: counts[fault.name] for fault in FAULTS if fault.name in counts}


if __name__ == "__main__":
    sys.exit(main())
