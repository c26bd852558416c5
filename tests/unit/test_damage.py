"""Damaged files of a study: what can be made again is made again, for anything else one sentence says how to go on."""

import json
import os
import random
import shutil
import sqlite3
import traceback
from pathlib import Path

import optuna
import pytest

from marslora import pipeline
from marslora.core.content import find_damage
from marslora.core.errors import MarsloraError, StudyError, WriteError
from marslora.core.runs import Observation
from marslora.pipeline import Pipeline, export_decision
from marslora.report import page
from marslora.store.storage_errors import explain_storage_error
from marslora.store.study import Study
from tests.helpers.listeners import RecordingListener
from tests.helpers.quick_sqlite import quick_sqlite  # noqa: F401
from tests.unit.store.test_study import member
from tests.unit.test_pipeline import fakes, spec  # noqa: F401

ASKED = spec("grid", space={"vision": [4, 16], "projector": [16], "language": [4]})
DERIVED = ["prepared.json", "stages.json", "laws.json", "decision.json", "final.json", "plan/final.json"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "study"
    with pytest.MonkeyPatch.context() as patch:
        for name, work in (("PREPARE", "prepare"), ("RUN_FINAL", "run_final")):
            patch.setattr(pipeline, name, f"tests.helpers.fake_training:{work}")
        patch.setattr(pipeline, "RUN_PACK", "tests.helpers.kill_points:run_pack")
        run(folder)
    return folder


@pytest.fixture
def study(finished, tmp_path, monkeypatch):
    """A copy of a finished study, in which no run is trained again."""
    monkeypatch.setattr(pipeline, "RUN_PACK", "nowhere:nothing")
    return shutil.copytree(finished, tmp_path / "study")


def run(folder):
    listener = RecordingListener()
    with Study.create(folder, ASKED) as study:
        line = Pipeline(study, listener=listener)
        decision, final = line.decide(), line.train()
        line.export()
    return decision, final.validation_loss, listener.notes


def damage(path, how):
    data = path.read_bytes()
    noise = random.Random(0).randbytes(max(len(data), 64))
    path.write_bytes({"truncated": data[: len(data) // 2], "emptied": b"", "random": noise}[how])


def read_derived(study):
    """The artifacts, without the place of the folder that they were made in and the stages that nobody asks for."""
    found = {file: json.loads((study / file).read_text()) for file in DERIVED}
    found["final.json"] |= {"id": "", "adapter_folder": ""}
    found["stages.json"] = {
        key: value for key, value in found["stages.json"].items() if not key.startswith("plan/round")
    }
    return found


HOWS = ["truncated", "emptied", "random"]


@pytest.mark.parametrize("name", DERIVED)
def test_what_follows_from_runs_is_made_again(study, name):
    decision, loss, _ = run(study)
    files = read_derived(study)
    for how in HOWS:
        damage(study / name, how)
        assert run(study)[:2] == (decision, loss)
        assert read_derived(study) == files


@pytest.mark.parametrize("name", ["decision.json", "prepared.json"])
def test_who_only_reads_is_told_who_makes_it_again(study, name):
    damage(study / name, "truncated")
    with pytest.raises(StudyError, match=rf"{name} cannot be read .*\. Run the search or the comparison again"):
        export_decision(Study.open(study))


def test_a_damaged_adapter_is_made_again(study):
    path = study / "final" / "adapter" / "weights.json"
    for how in HOWS:
        damage(path, how)
        notes = run(study)[2]
        assert path.read_text() == "{}"
        assert any("weights.json is damaged" in note for note in notes)
    shutil.rmtree(path.parent)
    run(study)
    assert path.exists()


@pytest.mark.parametrize("how", HOWS)
def test_a_damaged_spec_is_left_alone(study, how):
    damage(study / "spec.json", how)
    with pytest.raises(StudyError, match=r"spec\.json.*(Restore it|Choose another folder)"):
        run(study)


@pytest.mark.parametrize("how", HOWS)
def test_a_damaged_database_is_made_again_from_checkpoints(study, monkeypatch, how):
    decision, loss, _ = run(study)
    monkeypatch.setattr(pipeline, "RUN_PACK", "tests.helpers.kill_points:run_pack")
    monkeypatch.setattr("tests.helpers.fake_training.loss", None)  # nothing is trained
    monkeypatch.setattr(pipeline, "RUN_FINAL", "nowhere:nothing")
    damage(study / "study.db", how)
    try:
        run(study)
    except MarsloraError as error:
        assert how != "emptied"
        assert "is damaged" in str(error) and "Move it away and run the same command again" in str(error)
        (study / "study.db").unlink()
    assert run(study)[:2] == (decision, loss)


def others_can_read(path):
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in path.resolve().parents)


def test_a_study_that_cannot_be_written_can_be_reported_and_exported(study, tmp_path, monkeypatch):
    """In a process without rights on the folder; this one may be root."""
    if os.geteuid() == 0 and not others_can_read(Path(optuna.__file__)):
        pytest.skip("another user cannot read the installed packages")
    out = tmp_path / "out"
    out.mkdir()
    for path in (study, *study.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    out.chmod(0o777)
    with Study.open(study) as opened:  # what is imported late is where the other user cannot read
        page.write_report(opened, out / "first.html")
        export_decision(opened, ["peft"], out / "first")
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*")}
    child = os.fork()
    if not child:
        code = 1
        try:
            if os.geteuid() == 0:
                for folder in (tmp_path, *list(tmp_path.parents)[:3]):
                    folder.chmod(0o755)
                os.setuid(65534)
            with Study.open(study) as opened:
                assert len(opened.runs()) == 2
                page.write_report(opened, out / "page.html")
                assert export_decision(opened, ["peft"], out)
                with pytest.raises(WriteError, match="Cannot write"):
                    page.write_report(opened)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*")} == before


def test_to_read_makes_no_database(study):
    (study / "study.db").unlink()
    with Study.open(study) as opened:
        assert opened.runs() == []
    assert not (study / "study.db").exists()


def test_a_full_disk_is_one_sentence(study, monkeypatch):
    with Study.create(study, ASKED) as opened:
        opened.trials.start(member())

        def fail(*_):
            raise sqlite3.OperationalError("database or disk is full")

        engine = opened.trials._storage._backend.engine
        with engine.connect() as connection:
            monkeypatch.setattr(engine.dialect, "do_commit", fail)
            with pytest.raises(WriteError, match=r"study\.db: No space left on device\. Free some space"):
                opened.trials.observe(Observation(member="joint", examples=1, metric="validation_loss", value=1.0))
            monkeypatch.undo()
            connection.close()


def test_no_password_is_printed():
    error = explain_storage_error("postgresql://me:secret@host/runs", ValueError("no such host"))
    assert "secret" not in str(error) and "me:***@host" in str(error)
    assert "secret" not in str(explain_storage_error("nonsense:secret@host", ValueError("no")))


def test_files_with_weights_are_looked_at(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    np = pytest.importorskip("numpy")
    path = tmp_path / "adapter.safetensors"
    safetensors.save_file({"a": np.ones((4, 4), np.float32)}, path)
    assert find_damage(tmp_path) is None
    whole = path.read_bytes()
    for how in HOWS:
        damage(path, how)
        assert "adapter.safetensors is damaged" in find_damage(tmp_path)
        path.write_bytes(whole)
    path.unlink()
    assert "is empty or gone" in find_damage(tmp_path)
