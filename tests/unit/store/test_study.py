"""The study folder: resumable, guarded, whole files or none."""

import json
import multiprocessing

import pytest
from tests.helpers.quick_sqlite import quick_sqlite  # noqa: F401

from marslora.core.allocation import Allocation
from marslora.core.errors import StudyError
from marslora.core.runs import Cost, MemberResult, Observation
from marslora.core.spec import DataSpec, MemberSpec, ModelSpec, StudySpec
from marslora.store.study import Study


def spec(**changes):
    values = {"model": {"path": "m"}, "data": {"train": ["a"]}, "space": {"vision": [2, 8], "language": [2, 8]}}
    return StudySpec.parse({**values, **changes})


def member(**changes):
    values = {
        "id": "joint",
        "allocation": {"vision": 2, "language": 8},
        "data_examples": 64,
        "until_examples": 32,
    }
    return MemberSpec.parse({**values, **changes})


def observe(study, name, *points):
    for examples, loss in points:
        study.trials.observe(Observation(member=name, examples=examples, metric="validation_loss", value=loss))


def test_a_run_survives_the_process(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        study.trials.start(member())
        observe(study, "joint", (0, 2.0), (16, 1.5))
    with Study.create(tmp_path, spec()) as study:
        (run,) = study.runs()
        assert (run.status, run.examples, run.validation_loss) == ("running", (0, 16), (2.0, 1.5))
        study.trials.start(member())
        observe(study, "joint", (16, 1.5), (32, 1.25))
        result = MemberResult(member="joint", status="complete", examples=32, cost=Cost(seconds=1.5, examples=32))
        study.trials.finish(result)
        (run,) = study.runs()
    assert run.status == "complete"
    assert run.validation_loss == (2.0, 1.5, 1.25)
    assert run.cost.examples == 32
    assert run.member.allocation == Allocation.of(vision=2, language=8)


def test_a_continued_member_is_one_run(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        for until, points in ((32, [(0, 2.0), (32, 1.5)]), (64, [(64, 1.0)])):
            study.trials.start(member(until_examples=until))
            observe(study, "joint", *points)
            study.trials.finish(MemberResult(member="joint", status="complete", examples=until, cost=Cost(examples=32)))
        (run,) = study.runs()
    assert run.examples == (0, 32, 64)
    assert run.cost.examples == 64
    assert run.member.until_examples == 64


def test_other_series_are_kept(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        study.trials.start(member())
        for examples in (16, 32):
            study.trials.observe(
                Observation(member="joint", examples=examples, metric="train_loss", value=1 / examples)
            )
        study.trials.finish(MemberResult(member="joint", status="diverged", examples=32, message="loss was nan"))
        assert study.trials.series("train_loss") == {"joint": [(16, 1 / 16), (32, 1 / 32)]}
        assert study.runs()[0].status == "diverged"
        assert study.runs()[0].last_loss == float("inf")


def test_another_spec_is_refused_with_the_field(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        study.write_json("prepared.json", {}, "")
    with pytest.raises(StudyError, match=r"data\.seed: 0 there, 3 now.*Choose another folder"):
        Study.create(tmp_path, spec(data={"train": ["a"], "seed": 3}))


def test_a_study_that_never_got_anywhere_makes_room_for_a_corrected_one(tmp_path):
    Study.create(tmp_path, spec(data={"train": ["mistyped"]})).close()
    Study.create(tmp_path, spec()).close()
    assert Study.open(tmp_path).spec == spec()


def test_somebody_elses_spec_is_left_alone(tmp_path):
    (tmp_path / "spec.json").write_text('{"openapi": "3.1"}')
    with pytest.raises(StudyError, match="cannot be read"):
        Study.create(tmp_path, spec())
    assert "openapi" in (tmp_path / "spec.json").read_text()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl/study"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path, name):
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(StudyError, match=r"rows\.jsonl.* cannot be created: "):
        Study.create(tmp_path / name, spec())


def _hold(folder, taken, release):
    with Study.create(folder, spec()):
        taken.set()
        release.wait(20)


def test_two_processes_cannot_work_on_one_study(tmp_path):
    context = multiprocessing.get_context("spawn")
    taken, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, taken, release))
    process.start()
    assert taken.wait(20)
    try:
        with pytest.raises(StudyError, match="another process"):
            Study.create(tmp_path, spec())
    finally:
        release.set()
        process.join()
    Study.create(tmp_path, spec()).close()


def test_an_artifact_is_valid_for_its_inputs_only(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        study.write("data.json", DataSpec(train=("x",)), "digest-1")
        assert study.read("data.json", DataSpec, "digest-1") == DataSpec(train=("x",))
        assert study.read("data.json", DataSpec, "digest-2") is None
        assert study.read("absent.json", DataSpec) is None


def test_a_folder_without_a_study_says_so(tmp_path):
    with pytest.raises(StudyError, match="not a study folder"):
        Study.open(tmp_path)


@pytest.mark.parametrize("name", ["data.json", "stages.json"])
def test_a_damaged_artifact_is_absent_for_who_can_make_it_and_an_error_for_who_reads(tmp_path, name):
    told = []
    with Study.create(tmp_path, spec()) as study:
        study.tell = told.append
        study.write("data.json", DataSpec(train=("x",)), "digest")
        (tmp_path / name).write_text("{")
        assert study.read("data.json", DataSpec, "digest") is None
        assert f"{name} cannot be read and is made again" in told[0]
    with pytest.raises(StudyError, match=f"{name} cannot be read .* Run the search or the comparison again"):
        Study.open(tmp_path).read("data.json", DataSpec, "digest")


def test_a_damaged_spec_says_so(tmp_path):
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(StudyError, match="cannot be read"):
        Study.open(tmp_path)


def test_the_spec_file_is_plain_json(tmp_path):
    Study.create(tmp_path, spec()).close()
    assert json.loads((tmp_path / "spec.json").read_text())["space"] == {"vision": [2, 8], "language": [2, 8]}
    assert ModelSpec(path="m") == Study.open(tmp_path).spec.model


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema_version": 2}, "its spec.json has schema version 2, this version needs 3"),
        ({"colour": "red"}, "`colour` is not a field"),
    ],
)
def test_a_folder_of_an_earlier_version_says_what_to_do(tmp_path, change, reason):
    with Study.create(tmp_path, spec()):
        pass
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    for use in (lambda: Study.open(tmp_path), lambda: Study.create(tmp_path, spec())):
        with pytest.raises(StudyError, match="was made by another version of marslora") as error:
            use()
        assert str(tmp_path) in str(error.value) and reason in str(error.value)
        assert "Choose another folder" in str(error.value)
