"""A study is known by what its settings, model and rows are, wherever they lie."""

import os

import pytest

from marslora import pipeline
from marslora.core.content import SAMPLE_BYTES, digest_model_folder, digest_paths
from marslora.core.errors import StudyError
from marslora.core.spec import StudySpec
from marslora.pipeline import Pipeline
from marslora.settings import default_folder
from marslora.store.study import Study
from tests.helpers import fake_training
from tests.helpers.quick_sqlite import quick_sqlite  # noqa: F401
from tests.unit.test_pipeline import fakes, spec  # noqa: F401

SPACE = {"vision": [4, 16], "projector": [16], "language": [4]}


def run(folder, rows, storage=None, model="m"):
    asked = spec("grid", space=SPACE, data={"train": [str(rows)]}, model={"path": str(model)})
    with Study.create(folder, asked, storage) as study:
        line = Pipeline(study)
        decision = line.decide()
        result = line.train()
        line.export()
        return decision, result


@pytest.fixture
def nothing_is_trained(monkeypatch):
    def forbid():
        monkeypatch.setattr(pipeline, "RUN_PACK", "nowhere:nothing")
        monkeypatch.setattr(pipeline, "RUN_FINAL", "nowhere:nothing")

    return forbid


def test_nothing_is_trained_again_when_folder_rows_and_model_move(tmp_path, monkeypatch, nothing_is_trained):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "rows.jsonl").write_text("{}")
    first = run(tmp_path / "here" / "study", tmp_path / "rows.jsonl")
    nothing_is_trained()
    for spelling in ("study", "../here/study"):
        decision, _ = run(type(tmp_path)(spelling), tmp_path / "rows.jsonl")
        assert decision == first[0]
    os.rename(tmp_path / "here" / "study", tmp_path / "moved")
    os.rename(tmp_path / "rows.jsonl", tmp_path / "same.jsonl")
    decision, final = run(tmp_path / "moved", tmp_path / "same.jsonl", model="renamed")
    assert decision == first[0]
    assert final.model_copy(update={"adapter_folder": "", "id": ""}) == first[1].model_copy(
        update={"adapter_folder": "", "id": ""}
    )
    with Study.open(tmp_path / "moved") as study:
        assert study.spec.data.train == (str(tmp_path / "same.jsonl"),)
        assert study.read_full_run("final").adapter_folder == str(tmp_path / "moved" / "final" / "adapter")


def change_prepared(monkeypatch, **changes):
    data = fake_training.PREPARED.data.model_copy(update={"fingerprint": changes.pop("rows", "f")})
    monkeypatch.setattr(fake_training, "PREPARED", fake_training.PREPARED.model_copy(update={"data": data, **changes}))


def test_other_rows_or_another_model_in_the_same_storage_is_another_study(tmp_path, monkeypatch):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    run(tmp_path / "one", "rows.jsonl", storage)
    for name, changes in (("two", {"rows": "other"}), ("three", {"model_fingerprint": "other"})):
        change_prepared(monkeypatch, **changes)
        with Study.create(tmp_path / name, spec("grid", space=SPACE, data={"train": ["rows.jsonl"]}), storage) as study:
            Pipeline(study).prepare()
            assert study.finished_runs() == []


def test_the_same_study_in_another_folder_takes_the_runs_of_the_storage(tmp_path, monkeypatch):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    first = run(tmp_path / "one", "rows.jsonl", storage)
    monkeypatch.setattr(pipeline, "RUN_PACK", "nowhere:nothing")
    second = run(tmp_path / "two", "elsewhere/rows.jsonl", storage)
    assert second[0] == first[0]
    with Study.create(tmp_path / "one", spec("grid", space=SPACE), storage) as one:
        assert one.finished_runs()
        with (
            Study.create(tmp_path / "two", spec("grid", space=SPACE), storage) as two,
            pytest.raises(
                StudyError, match=f"the process {os.getpid()} on .* is working on this study in the same storage"
            ),
        ):
            two.finished_runs()


def test_another_model_in_the_folder_of_a_study_is_refused(tmp_path, monkeypatch):
    change_prepared(monkeypatch, model_fingerprint="a")
    run(tmp_path / "study", "rows.jsonl")
    change_prepared(monkeypatch, model_fingerprint="b")
    with pytest.raises(StudyError, match="the model other is not the one that"):
        run(tmp_path / "study", "rows.jsonl", model="other")
    with Study.open(tmp_path / "study") as study:
        assert study.spec.model.path == "m"


def make_model(folder, middle=b"x"):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    weights = bytearray(100 * SAMPLE_BYTES)
    weights[40 * SAMPLE_BYTES : 44 * SAMPLE_BYTES] = middle * (4 * SAMPLE_BYTES)
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_a_model_is_what_is_in_its_files(tmp_path):
    one = digest_model_folder(make_model(tmp_path / "one"))
    other = make_model(tmp_path / "other")
    (other / "README.md").write_text("not a part of it")
    os.utime(other / "config.json", (1, 1))
    assert digest_model_folder(other) == one
    (other / "config.json").write_text("[]")
    assert digest_model_folder(other) != one
    changed = bytearray((other / "model.safetensors").read_bytes())
    changed[-1] = 7
    assert digest_model_folder(make_model(tmp_path / "third", b"y")) != one
    (tmp_path / "one" / "model.safetensors").write_bytes(changed)
    assert digest_model_folder(tmp_path / "one") != one


def test_the_default_folder_follows_the_content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = make_model(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text("{}")

    def folder(rows, path=model):
        values = {"model": {"path": str(path)}, "data": {"train": [str(rows)]}, "space": SPACE}
        return default_folder(StudySpec.parse(values))

    first = folder("rows.jsonl")
    assert first == folder(tmp_path / "rows.jsonl") == folder("./rows.jsonl")
    os.rename("rows.jsonl", "renamed.jsonl")
    assert folder("renamed.jsonl") == first
    first.mkdir(parents=True)
    os.rename(model, tmp_path / "renamed")
    assert folder("renamed.jsonl", tmp_path / "renamed") == first
    (tmp_path / "renamed.jsonl").write_text("{} ")
    assert folder("renamed.jsonl", tmp_path / "renamed") != first


def test_folders_of_rows_count_with_their_files(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_text("{}")
    assert digest_paths([tmp_path / "one"]) == digest_paths([tmp_path / "two"])
    (tmp_path / "two" / "b.jsonl").write_text("{}")
    assert digest_paths([tmp_path / "one"]) != digest_paths([tmp_path / "two"])
    assert digest_paths([tmp_path / "absent"]) != digest_paths([tmp_path / "missing"])
