"""A study that is killed at any durable operation ends, when it is run again, bit for bit as if nothing had been."""

import json
import re
import shutil

import pytest

from marslora import api, pipeline
from marslora.core.spec import StudySpec
from marslora.run_options import RunOptions
from marslora.store import storage_lock, trials
from marslora.store.study import Study
from tests.helpers import kill_points
from tests.helpers.cached_fits import cached_fits  # noqa: F401
from tests.helpers.quick_sqlite import quick_sqlite  # noqa: F401

SPACE = {"vision": [1, 4, 16], "projector": [16], "language": [4, 16]}
LEFT_OUT = r"\.lock|study\.db|plan/round-|(members|final)/.*/\.\w+\.json\."
"""Plans are numbered on; the fake training leaves temporary files in folders that the real one replaces whole."""
FAST = 5
"""Kill points that the fast test takes, at even distances; the slow one takes all."""


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    monkeypatch.setattr(trials, "WAIT_SECONDS", 0.0)  # every loss is an operation
    monkeypatch.setattr(pipeline, "PREPARE", "tests.helpers.fake_training:prepare")
    monkeypatch.setattr(pipeline, "RUN_PACK", "tests.helpers.kill_points:run_pack")
    monkeypatch.setattr(pipeline, "RUN_FINAL", "tests.helpers.fake_training:run_final")
    monkeypatch.setattr("marslora.report.page.write_report", lambda study: None)  # seconds of plotting


def start(folder, strategy, storage=None):
    spec = StudySpec.parse(
        {
            "model": {"path": "m"},
            "data": {"train": ["a"]},
            "space": SPACE,
            "training": {"examples": 512, "batch_size": 16},
            "search": {"strategy": {"name": strategy}},
        }
    )
    api.run_study(spec, RunOptions(study=folder, storage=storage))


def outcome(folder, storage=None):
    """What is in the folder, without plans of rounds, which are numbered on, and what is behind the database."""
    files = {
        name: path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not re.match(LEFT_OUT, name := str(path.relative_to(folder)))
    }
    stages = json.loads(files["stages.json"])
    files["stages.json"] = {name: inputs for name, inputs in stages.items() if not re.match(LEFT_OUT, name)}
    with Study.open(folder, storage) as study:
        return files, study.runs(), study.trials.series("train_loss")


def undisturbed(folder, strategy):
    """(durable operations, outcome) of a study that nobody disturbs."""
    with kill_points.count_durable_operations() as seen:
        start(folder, strategy)
    return seen, outcome(folder)


def check(folder, strategy, share, record_property):
    operations, whole = undisturbed(folder, strategy)
    assert len(operations) > 50
    wrong, points = [], range(0, len(operations), len(operations) // share if share else 1)
    record_property("injected", len(points))
    for fatal in points:
        shutil.rmtree(folder)
        assert kill_points.run_in_child(lambda: start(folder, strategy), fatal) == kill_points.KILLED
        assert kill_points.run_in_child(lambda: start(folder, strategy)) == 0, f"not resumed after operation {fatal}"
        if differing := list(differences(outcome(folder), whole)):
            wrong.append((fatal, operations[fatal], differing))
    assert not wrong


def differences(found, expected):
    """What of the outcome of a study is not as expected."""
    files, *others = expected
    yield from sorted(name for name in {**files, **found[0]} if files.get(name) != found[0].get(name))
    yield from (name for name, a, b in zip(("runs", "series"), found[1:], others, strict=True) if a != b)


def test_operations_are_the_same_ones_however_slow_the_machine_is(tmp_path, monkeypatch, record_property):
    """A lock that beats often is that of a study that takes long. Nothing is killed."""
    record_property("injected", 0)
    found = []
    for seconds in (storage_lock.BEAT_SECONDS, 0.05):
        monkeypatch.setattr(storage_lock, "BEAT_SECONDS", seconds)
        operations, _ = undisturbed(tmp_path / "study", "successive_halving")
        found.append([re.sub(r"\.\w+$", "", operation) for operation in operations])  # without random suffixes
        shutil.rmtree(tmp_path / "study")
    assert len(found[0]) == len(found[1])
    assert not [(quick, slow) for quick, slow in zip(*found, strict=True) if quick != slow]


def test_a_study_that_is_killed_here_and_there_ends_as_if_nothing_had_been(tmp_path, record_property):
    check(tmp_path / "study", "successive_halving", FAST, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["successive_halving", "asha", "mars"])
def test_a_study_that_is_killed_anywhere_ends_as_if_nothing_had_been(tmp_path, strategy, record_property):
    check(tmp_path / "study", strategy, None, record_property)


@pytest.mark.slow
def test_losses_that_waited_to_be_written_come_from_the_checkpoints(tmp_path, monkeypatch, record_property):
    monkeypatch.setattr(trials, "WAIT_SECONDS", float("inf"))
    check(tmp_path / "study", "successive_halving", None, record_property)
