"""The stages of a comparison, with a training wing that only pretends."""

import json

import pytest

from marslora import pipeline
from marslora.comparison import stages
from marslora.comparison.run import run_comparison
from marslora.comparison.settings import ComparisonRequest
from marslora.comparison.stages import make_slug
from marslora.core.comparison import Comparison, ComparisonSpec
from marslora.core.errors import ConfigError, StudyError
from marslora.core.spec import StudySpec
from marslora.run_options import ComparisonOptions
from tests.helpers.fake_training import INFO
from tests.helpers.listeners import RecordingListener
from tests.helpers.outside_adapter import NAME

FAKES = "tests.helpers.fake_training"


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    monkeypatch.setattr(pipeline, "PREPARE", f"{FAKES}:prepare")
    monkeypatch.setattr(stages, "COUNT", f"{FAKES}:count_parameters")
    monkeypatch.setattr(stages, "COUNT_FLOPS", f"{FAKES}:count_row_flops")
    monkeypatch.setattr(stages, "TRAIN", f"{FAKES}:train")


def request_comparison(*methods, common=None, **fields):
    common = {"examples": 512, "batch_size": 16, **(common or {})}
    study = StudySpec.parse(
        {
            "model": {"path": "m"},
            "data": {"train": ["a"]},
            "space": {"vision": [16], "projector": [16], "language": [16]},
            "training": common,
            "search": {"strategy": {"name": "uniform"}},
        }
    )
    entries = [{"recipe": each} if isinstance(each, str) else each for each in methods]
    return ComparisonRequest(study, common, ComparisonSpec.parse({"methods": entries, **fields}))


def run(request, folder, listener=None):
    return run_comparison(request, ComparisonOptions(out=folder), listener)


def never(monkeypatch):
    """From now on nothing can be trained or counted."""
    for name in ("COUNT", "COUNT_FLOPS", "TRAIN"):
        monkeypatch.setattr(stages, name, "nowhere:nothing")


def test_methods_train_as_many_parameters_as_the_reference(tmp_path):
    listener = RecordingListener()
    found = run(request_comparison("uniform", "hydralora"), tmp_path, listener=listener)
    uniform, hydra = found.methods
    assert uniform.num_planned == INFO.num_trainable(uniform.allocation) == 3 * 64 * 16
    assert hydra.num_planned == 3 * INFO.num_trainable(hydra.allocation)
    assert {rank for _, rank in hydra.allocation.ranks} == {5}  # 3 x 5 = 15 is as near as it gets to 16
    assert hydra.training.alpha_over_rank == 8.0
    assert hydra.examples == uniform.examples == 512
    assert [run.seed for run in hydra.runs] == [0, 1, 2]
    assert uniform.difference is None
    expected = [h.validation_loss - u.validation_loss for h, u in zip(*map(losses, (hydra, uniform)), strict=True)]
    assert hydra.difference.value == pytest.approx(sum(expected) / 3)
    assert listener.steps[-1].done == listener.steps[-1].total == 6 * 512
    assert Comparison.load(tmp_path / "compare.json") == found
    assert "hydralora" in (tmp_path / "compare.html").read_text()


def losses(method):
    return list(method.results.values())


def test_ranks_stay_where_examples_are_equal(tmp_path):
    found = run(request_comparison("uniform", "hydralora", equal="examples"), tmp_path)
    assert [method.allocation["vision"] for method in found.methods] == [16, 4]
    common = run(request_comparison("uniform", "hydralora", equal="examples", ranks=8), tmp_path / "common")
    assert [method.allocation["vision"] for method in common.methods] == [8, 8]


def test_equal_compute_buys_fewer_examples_of_a_dearer_method(tmp_path):
    found = run(request_comparison("uniform", "hydralora", "eva", equal="compute"), tmp_path)
    assert [method.examples for method in found.methods] == [512, 256, 384]
    assert [method.flops_per_row for method in found.methods] == [1e6, 2e6, 1e6]


def test_a_finished_comparison_trains_nothing(tmp_path, monkeypatch):
    first = run(request_comparison("uniform", "hydralora"), tmp_path)
    never(monkeypatch)
    assert run(request_comparison("uniform", "hydralora"), tmp_path) == first


def test_methods_and_seeds_can_be_added(tmp_path, monkeypatch):
    run(request_comparison("uniform", "hydralora", seeds=[0, 1]), tmp_path)
    (tmp_path / "runs" / "uniform.s0.json").write_text(
        (tmp_path / "runs" / "uniform.s0.json").read_text().replace('"seconds": 1.0', '"seconds": 123.0')
    )
    found = run(request_comparison("uniform", "eva", "hydralora", seeds=[0, 1, 2]), tmp_path)
    assert found.methods[0].results[0].cost.seconds == 123.0
    assert all(len(method.results) == 3 for method in found.methods)


def test_an_interrupted_comparison_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_DIE_AT", "hydralora.s1")
    with pytest.raises(KeyboardInterrupt):
        run(request_comparison("uniform", "hydralora"), tmp_path)
    there = {path.name for path in (tmp_path / "runs").glob("*.json")}
    assert there == {"uniform.s0.json", "hydralora.s0.json", "uniform.s1.json"}
    monkeypatch.delenv("FAKE_DIE_AT")
    whole = run(request_comparison("uniform", "hydralora"), tmp_path / "whole")
    again = run(request_comparison("uniform", "hydralora"), tmp_path)
    assert [m.difference for m in again.methods] == [m.difference for m in whole.methods]


def test_a_method_that_fails_costs_only_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "hydralora")
    listener = RecordingListener()
    found = run(request_comparison("uniform", "llava_mole", "hydralora", "eva"), tmp_path, listener=listener)
    uniform, moe, hydra, eva = found.methods
    assert "no experts here" in moe.error
    assert [run.error for run in hydra.runs] == ["OutOfMemoryError: no room"] * 3
    assert hydra.validation_loss is None
    assert len(eva.results) == len(uniform.results) == 3
    assert any("no experts here" in note for note in listener.notes)
    assert any("no room" in note for note in listener.notes)
    page = (tmp_path / "compare.html").read_text()
    assert "no room" in page
    assert "no experts here" in page
    monkeypatch.delenv("FAKE_FAIL")
    assert len(run(request_comparison("uniform", "hydralora"), tmp_path).methods[1].results) == 3


def test_a_reference_that_cannot_be_planned_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no experts here"):
        run(request_comparison("llava_mole", "uniform"), tmp_path)


def test_a_kind_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="nosuch"):
        run(
            request_comparison(
                "uniform", {"recipe": "uniform", "name": "b", "training": {"optimizer": {"name": "nosuch"}}}
            ),
            tmp_path,
        )


@pytest.mark.parametrize(
    "training",
    [
        {"adapter": {"name": NAME}, "dropout": 0.1},
        {"adapter": {"name": "hydralora", "options": {"hads": 3}}},
        {"adapter": {"name": "pathlib:Path"}},
        {"optimizer": {"name": "nosuch"}},
    ],
)
def test_what_no_final_run_can_train_is_an_error_before_anything_is_read(tmp_path, monkeypatch, training):
    monkeypatch.setattr(pipeline, "PREPARE", "nowhere:nothing")
    with pytest.raises(ConfigError):
        run(request_comparison("uniform", {"recipe": "uniform", "name": "other", "training": training}), tmp_path)


def test_other_common_settings_are_another_folder(tmp_path):
    run(request_comparison("uniform"), tmp_path)
    with pytest.raises(StudyError, match="learning_rate"):
        run(request_comparison("uniform", common={"learning_rate": 1e-3}), tmp_path)


def test_changed_settings_of_one_method_are_trained_again(tmp_path):
    run(request_comparison("uniform", "eva"), tmp_path)
    before = (tmp_path / "runs" / "uniform.s0.json").stat().st_mtime_ns
    changed = {"recipe": "eva", "training": {"learning_rate": 1e-3}}
    run(request_comparison("uniform", changed), tmp_path)
    assert (tmp_path / "runs" / "uniform.s0.json").stat().st_mtime_ns == before
    stages_of = json.loads((tmp_path / "stages.json").read_text())
    run(request_comparison("uniform", "eva"), tmp_path)
    assert json.loads((tmp_path / "stages.json").read_text())["runs/eva.s0.json"] != stages_of["runs/eva.s0.json"]


def test_names_of_files_tell_methods_apart():
    titles = ["a b", "a_b", "a/b", "asymlora:rank=8,rate.projector=0.1", "eva"]
    names = [make_slug(title) for title in titles]
    assert len(set(names)) == len(titles)
    assert all("/" not in name and " " not in name for name in names)
    assert make_slug("eva") == "eva"
