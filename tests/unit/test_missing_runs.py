"""Packs that fail are trained again; what is missing in the end is said first."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from marslora import api, pipeline
from marslora.cli import _run
from marslora.core.errors import DataError, OutOfMemoryError, WorkerDiedError, WriteError
from marslora.core.runs import FinalResult
from marslora.executors.processes import Processes
from marslora.pipeline import Pipeline
from marslora.run_options import RunOptions
from marslora.store.study import Study
from tests.helpers.cached_fits import cached_fits  # noqa: F401
from tests.helpers.listeners import RecordingListener
from tests.helpers.quick_sqlite import quick_sqlite  # noqa: F401
from tests.unit.test_pipeline import fakes, spec  # noqa: F401

FAILING = "tests.helpers.failing_training"
SPACE = {"vision": [0, 4, 16], "projector": [16], "language": [4, 16]}


def search(folder, work, monkeypatch, **more):
    monkeypatch.setattr(pipeline, "RUN_PACK", work if ":" in work else f"{FAILING}:{work}")
    with Study.create(folder, spec("grid", space=SPACE)) as study:
        line = Pipeline(study, listener=RecordingListener(), **more)
        return line.decide(), study.finished_runs(), line.listener.notes


@pytest.fixture
def whole(tmp_path, monkeypatch):
    return search(tmp_path / "whole", "tests.helpers.fake_training:run_pack", monkeypatch)


@pytest.mark.parametrize(
    ("work", "executor"), [("fail_once", {}), ("be_killed_once", {"executor": Processes(num_workers=2)})]
)
def test_a_pack_that_failed_is_trained_again_at_once(tmp_path, monkeypatch, whole, work, executor):
    decision, runs, notes = search(tmp_path / "failed", work, monkeypatch, **executor)
    assert (decision, runs) == whole[:2] and not decision.problems
    assert sum("failed and is trained once more" in note for note in notes) == 1


def test_a_decision_with_missing_runs_says_so_first_and_the_next_start_trains_them(tmp_path, monkeypatch, whole):
    decision, runs, notes = search(tmp_path / "failed", "fail_always", monkeypatch)
    assert {run.member.allocation["vision"] for run in runs if run.status == "failed"} == {0}
    assert decision.summary.startswith("2 of 6 runs are missing (")
    assert "run the same command again" in decision.problems[0] and "no room" in notes[-1]
    again, runs, _ = search(tmp_path / "failed", "tests.helpers.fake_training:run_pack", monkeypatch)
    assert (again, {run.member.id: run for run in runs}) == (whole[0], {run.member.id: run for run in whole[1]})


def test_a_full_disk_marks_nothing_as_failed(tmp_path, monkeypatch, whole):
    with pytest.raises(WriteError, match="No space left"):
        search(tmp_path / "full", "find_no_space", monkeypatch)
    again, _, _ = search(tmp_path / "full", "tests.helpers.fake_training:run_pack", monkeypatch)
    assert again == whole[0]


def test_a_search_in_which_every_run_diverges_trains_no_adapter(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "RUN_PACK", f"{FAILING}:diverge")
    monkeypatch.setattr(pipeline, "RUN_FINAL", "nowhere:nothing")
    monkeypatch.setattr("marslora.report.page.write_report", lambda study: None)
    decision = api.run_study(spec("grid", space=SPACE), RunOptions(study=tmp_path / "study"))
    assert decision.final is None
    assert "6 of 6 runs diverged" in str(decision) and "--lr, now 0.0002" in str(decision)


def test_the_final_run_of_a_killed_worker_is_started_again(tmp_path, monkeypatch):
    executor = Processes(num_workers=2)
    named = pipeline.FinalSpec.model_construct(output_folder=str(tmp_path))
    answer = executor.ask(f"{FAILING}:answer_second", named, FinalResult)
    assert answer.id == str(tmp_path)
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        executor.ask(f"{FAILING}:never_answer", named, FinalResult)
    with pytest.raises(DataError, match="once"):
        executor.ask(f"{FAILING}:refuse_once", named, FinalResult)


@pytest.mark.parametrize(("problems", "code"), [((), 0), (("2 of 6 runs are missing.",), 3)])
def test_the_exit_code_says_whether_the_verdict_can_be_relied_on(monkeypatch, problems, code):
    record = SimpleNamespace(problems=problems)
    monkeypatch.setattr(api, "run_study", lambda *_: SimpleNamespace(record=record, summary="verdict"))
    with pytest.raises(typer.Exit) if code else contextlib.nullcontext() as exited:
        _run.watch_study(spec("grid", space=SPACE), RunOptions(study=Path("study")))
    assert (exited.value.exit_code if code else 0) == code


def test_every_pack_failing_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{FAILING}.is_victim", lambda pack: True)
    with pytest.raises(OutOfMemoryError, match="no room"):
        search(tmp_path, "fail_always", monkeypatch)
