"""The stages of a study, with a training wing of known power laws."""

import json

import pytest

from marslora import pipeline
from marslora.api import run_study
from marslora.core.allocation import Allocation, Space
from marslora.core.budget import Limit
from marslora.core.data_files import data_fingerprint
from marslora.core.decision import Interval
from marslora.core.errors import ConfigError, OutOfMemoryError, StudyError
from marslora.core.ladders import build_space
from marslora.core.runs import Failure
from marslora.core.schedule import full_examples
from marslora.core.spec import DataSpec, SearchSpec, StudySpec, TrainingSpec
from marslora.pipeline import Pipeline
from marslora.run_options import RunOptions
from marslora.store.study import Study
from marslora.strategies import Problem, find_baseline, match_uniform
from marslora.strategies.mars import MarsStrategy
from tests.helpers import fake_training
from tests.helpers.cached_fits import cached_fits  # noqa: F401
from tests.helpers.listeners import RecordingListener
from tests.helpers.quick_sqlite import quick_sqlite  # noqa: F401

FAKES = "tests.helpers.fake_training"


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    monkeypatch.setattr(pipeline, "PREPARE", f"{FAKES}:prepare")
    monkeypatch.setattr(pipeline, "RUN_PACK", f"{FAKES}:run_pack")
    monkeypatch.setattr(pipeline, "RUN_FINAL", f"{FAKES}:run_final")


def spec(strategy="mars", **changes):
    ladder = [1, 4, 16, 64]
    values = {
        "model": {"path": "m"},
        "data": {"train": ["a"]},
        "space": {"vision": ladder, "projector": [16], "language": ladder},
        "training": {"examples": 2048, "batch_size": 16},
        "search": {"strategy": {"name": strategy}},
    }
    return StudySpec.parse({**values, **changes})


def test_the_whole_way_ends_with_every_artifact(tmp_path):
    with Study.create(tmp_path, spec("ranks_only")) as study:
        line = Pipeline(study)
        decision = line.decide()
        assert line.train().validation_loss < 1.0
        uniform = line.train_uniform()
        assert uniform.allocation["vision"] == uniform.allocation["language"]
        assert uniform.num_trainable == fake_training.INFO.num_trainable(uniform.allocation)
        line.export()
    assert {p.name for p in tmp_path.iterdir()} >= {
        "spec.json",
        "prepared.json",
        "plan",
        "study.db",
        "laws.json",
        "decision.json",
        "final.json",
        "uniform.json",
        "exports",
    }
    assert len(decision.candidates) == 16
    assert json.loads((tmp_path / "decision.json").read_text())["chosen"] == decision.chosen.as_dict()


def test_the_grid_finds_the_best_cell(tmp_path):
    with Study.create(tmp_path, spec("grid")) as study:
        decision = Pipeline(study).decide()
    assert decision.chosen == Allocation.of(vision=4, projector=16, language=16)


def test_an_interrupted_study_ends_with_the_same_decision(tmp_path, monkeypatch):
    with Study.create(tmp_path / "whole", spec()) as study:
        whole = Pipeline(study).decide()
    plan = json.loads((tmp_path / "whole" / "plan" / "round-01.json").read_text())
    victim = plan[-1]["members"][-1]["id"]
    monkeypatch.setenv("FAKE_DIE_AT", victim)
    with Study.create(tmp_path / "cut", spec()) as study, pytest.raises(KeyboardInterrupt):
        Pipeline(study).decide()
    monkeypatch.delenv("FAKE_DIE_AT")
    with Study.create(tmp_path / "cut", spec()) as study:
        again = Pipeline(study).decide()
    assert again.chosen == whole.chosen
    assert [c.predicted_loss for c in again.candidates] == [c.predicted_loss for c in whole.candidates]


def test_a_second_run_measures_nothing(tmp_path, monkeypatch):
    with Study.create(tmp_path, spec()) as study:
        first = Pipeline(study).decide()
    monkeypatch.setattr(pipeline, "RUN_PACK", "nowhere:nothing")
    monkeypatch.setattr(pipeline, "PREPARE", "nowhere:nothing")
    with Study.create(tmp_path, spec()) as study:
        assert Pipeline(study).decide().to_json() == first.to_json()


def test_a_space_with_an_unknown_part_is_refused(tmp_path):
    with (
        Study.create(tmp_path, spec(space={"audio": [2, 4]})) as study,
        pytest.raises(ConfigError, match="`audio` is not a part of FakeLlava"),
    ):
        Pipeline(study).decide()


def test_a_learning_rate_of_an_unknown_part_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "RUN_PACK", "nowhere:nothing")
    training = {"examples": 2048, "part_learning_rates": {"audio": 1e-4}}
    with (
        Study.create(tmp_path, spec(training=training)) as study,
        pytest.raises(ConfigError, match="`audio` is not a part of FakeLlava"),
    ):
        Pipeline(study).decide()


def test_rows_that_change_under_a_study_are_noticed(tmp_path, monkeypatch):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}")
    asked = spec("uniform", data={"train": [str(rows)]})
    with Study.create(tmp_path / "study", asked) as study:
        Pipeline(study).decide()
    rows.write_text("{} ")
    changed = fake_training.PREPARED.model_copy(
        update={"data": fake_training.PREPARED.data.model_copy(update={"fingerprint": "g"})}
    )
    monkeypatch.setattr(fake_training, "PREPARED", changed)
    with Study.create(tmp_path / "study", asked) as study, pytest.raises(StudyError, match="not those that"):
        Pipeline(study).decide()


def test_files_in_folders_are_watched_too(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.jsonl").write_text("{}")
    for name in (str(tmp_path / "rows"), f"{tmp_path / 'rows'}#NAME"):
        before = data_fingerprint(DataSpec(train=(name,)))
        assert data_fingerprint(DataSpec(train=(name,))) == before
        with (tmp_path / "rows" / "a.jsonl").open("a") as file:
            file.write("{}")
        assert data_fingerprint(DataSpec(train=(name,))) != before


def test_rows_in_memory_are_looked_at_every_time(tmp_path, monkeypatch):
    asked = spec("uniform", data={"train": ["memory:train"]})
    with Study.create(tmp_path, asked) as study:
        Pipeline(study).decide()
    other = fake_training.PREPARED.data.model_copy(update={"fingerprint": "g"})
    monkeypatch.setattr(fake_training, "PREPARED", fake_training.PREPARED.model_copy(update={"data": other}))
    with Study.create(tmp_path, asked) as study, pytest.raises(StudyError, match="not those that"):
        Pipeline(study).decide()


@pytest.mark.parametrize(
    ("strategy", "budget", "noted"), [("grid", 1.0, True), ("grid", 16, False), ("mars", 1, False)]
)
def test_a_search_beyond_its_budget_is_said_once(tmp_path, strategy, budget, noted):
    listener = RecordingListener()
    search = {"strategy": {"name": strategy}, "budget": budget}
    with Study.create(tmp_path, spec(search=search)) as study:
        Pipeline(study, listener=listener).calibrate()
    assert sum("the budget was" in note for note in listener.notes) == noted


def fail(pack, emit):
    emit(Failure(id=pack.id, error="OutOfMemoryError", message="no room"))


def test_a_study_in_which_every_pack_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "RUN_PACK", f"{__name__}:fail")
    with Study.create(tmp_path, spec()) as study, pytest.raises(OutOfMemoryError, match="no room"):
        Pipeline(study).decide()


def test_packs_that_all_failed_are_trained_when_it_is_run_again(tmp_path, monkeypatch):
    with Study.create(tmp_path / "whole", spec()) as study:
        whole = Pipeline(study).decide()
    with monkeypatch.context() as patched, Study.create(tmp_path / "failed", spec()) as study:
        patched.setattr(pipeline, "RUN_PACK", f"{__name__}:fail")
        with pytest.raises(OutOfMemoryError, match="no room"):
            Pipeline(study).decide()
    with Study.create(tmp_path / "failed", spec()) as study:
        again = Pipeline(study).decide()
        assert "failed" not in {run.status for run in study.runs()}
    assert (again.chosen, again.verdict) == (whole.chosen, whole.verdict)
    assert [c.predicted_loss for c in again.candidates] == [c.predicted_loss for c in whole.candidates]


def fail_without_vision(pack, emit):
    if pack.members[0].allocation["vision"]:
        fake_training.run_pack(pack, emit)
    else:
        fail(pack, emit)


def test_a_pack_that_failed_alone_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "RUN_PACK", f"{__name__}:fail_without_vision")
    space = {"vision": [0, 4, 16], "projector": [16], "language": [4, 16]}
    with Study.create(tmp_path, spec("grid", space=space)) as study:
        decision = Pipeline(study).decide()
        failed = {run.member.allocation["vision"] for run in study.runs() if run.status == "failed"}
    assert failed == {0}
    assert decision.chosen["vision"] > 0


def test_a_full_run_is_whole_batches():
    assert full_examples(TrainingSpec(epochs=2, batch_size=16), 100) == 192
    assert full_examples(TrainingSpec(examples=5, batch_size=16), 100) == 16


def test_larger_allocations_are_no_candidates(tmp_path):
    search = {"strategy": {"name": "grid"}, "max_parameters": 2000}
    with Study.create(tmp_path, spec(search=search)) as study:
        line = Pipeline(study)
        decision = line.decide()
        allowed = {a for a in study.spec.space.allocations() if fake_training.INFO.num_trainable(a) <= 2000}
    assert 1 < len(allowed) < 16
    assert {candidate.allocation for candidate in decision.candidates} == allowed
    assert decision.chosen in allowed


def test_no_allocation_small_enough_is_said(tmp_path):
    with (
        Study.create(tmp_path, spec(search={"max_parameters": 100})) as study,
        pytest.raises(ConfigError, match=r"No allocation has at most 100 trainable .*: the smallest has 1152"),
    ):
        Pipeline(study).decide()


def test_a_tracker_that_does_not_exist_is_said_before_anything_is_read(tmp_path):
    with pytest.raises(ConfigError, match="`report_to` must name trackers that `transformers` knows"):
        run_study(spec(), RunOptions(report_to=("nosuch",), study=tmp_path / "study"))
    assert not list(tmp_path.iterdir())


def test_ladders_end_at_the_largest_rank():
    info = fake_training.INFO
    assert build_space(info, (4, 16, 64), max_rank=16) == Space.of(
        {"vision": (4, 16), "projector": (16,), "language": (4, 16)}
    )
    with pytest.raises(ConfigError, match=r"`max_rank` 2 excludes all ranks of every part, which are \[4, 16\]"):
        build_space(info, (4, 16), max_rank=2)
    assert build_space(info, 16) == build_space(info, (16,))
    for wrong in ("4;16", (), (4, "a"), (4.5,)):
        with pytest.raises(ConfigError, match="`ranks` must be ranks such as 4,16,64 or vision=4,16,64, found"):
            build_space(info, wrong)
        with pytest.raises(ConfigError, match=r"`ranks` must be .* for vision, found"):
            build_space(info, {"vision": wrong}, max_rank=16)
    with pytest.raises(ConfigError, match="`full` names every part of FakeLlava"):
        build_space(info, 16, full=[part.name for part in info.parts])
    with pytest.raises(ConfigError, match=r"excludes all ranks of language, which are \[32\]"):
        build_space(info, {"language": 32}, max_rank=16)
    with pytest.raises(ConfigError, match="no rank may be above `max_rank` = 16"):
        spec(search={"max_rank": 16})


def test_limits_are_in_the_digest():
    assert spec(search={"max_parameters": 10}).digest() != spec(search={}).digest()


def test_memory_is_a_limit_on_parameters():
    assert SearchSpec().most_parameters is None
    assert SearchSpec(max_memory="1MB").most_parameters == 62_500
    assert SearchSpec(max_memory="1MiB").most_parameters == 65_536
    assert SearchSpec(max_memory="1MB", max_parameters=9).most_parameters == 9
    assert SearchSpec(max_memory=320, max_parameters=90).most_parameters == 20
    with pytest.raises(ConfigError, match="max_memory"):
        SearchSpec.parse({"max_memory": "much"}, "search")


def test_candidates_keep_to_the_memory(tmp_path):
    with Study.create(tmp_path, spec(search={"max_memory": 16 * 5000})) as study:
        problem = Pipeline(study).problem
    counts = [problem.count_parameters(allocation) for allocation in problem.allocations()]
    assert counts and max(counts) <= 5000 < max(map(problem.count_parameters, problem.space.allocations()))


def test_a_uniform_choice_is_its_own_baseline(tmp_path, monkeypatch):
    listener = RecordingListener()
    with Study.create(tmp_path, spec("uniform")) as study:
        line = Pipeline(study, listener=listener)
        line.train()
        monkeypatch.setattr(pipeline, "RUN_FINAL", "nowhere:nothing")
        assert line.train_uniform() is None
        assert not study.path("uniform.json").exists()
    assert "the usual setting (vision=16 projector=16 language=16)" in listener.notes[0]


def test_beside_another_uniform_choice_the_usual_rank_is_trained(tmp_path):
    with Study.create(tmp_path, spec(search={"strategy": {"name": "uniform", "options": {"rank": 64}}})) as study:
        line = Pipeline(study)
        baseline = find_baseline(line.problem, line.decide())
    assert set(line.decide().chosen.as_dict().values()) == {16, 64}
    assert baseline is not None and baseline.allocation == Allocation.of(vision=16, projector=16, language=16)


def test_the_usual_setting_is_trained_at_the_rate_at_which_it_is_expected_to_end_lowest():
    space = Space.of({"vision": (4, 16, 64), "language": (4, 16, 64)})
    problem = Problem(
        space=space, num_train=100, full_examples=200, batch_size=4, learning_rates=(5e-4, 1e-3, 2e-3),
        count_parameters=lambda allocation: sum(allocation.as_dict().values()),
    )  # fmt: skip
    decision = MarsStrategy().decide(problem, ())
    candidates = [
        each.model_copy(
            update={"predicted_loss": Interval(value=2.0 - 400 * each.learning_rate, low=0.0, high=3.0, level=0.9)}
        )
        for each in decision.candidates
    ]
    chosen = decision.model_copy(
        update={"chosen": Allocation.of(vision=64, language=64), "candidates": tuple(candidates)}
    )
    baseline = find_baseline(problem, chosen)
    assert baseline is not None and baseline.learning_rate == 2e-3
    assert baseline.allocation == Allocation.of(vision=16, language=16)


def test_the_uniform_baseline_has_about_as_many_parameters(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        problem = Pipeline(study).problem
    uniform = match_uniform(problem, Allocation.of(vision=4, projector=16, language=64))
    assert uniform == Allocation.of(vision=34, projector=16, language=34)


def test_an_adapter_that_cannot_train_packed_is_refused_before_anything_is_trained(tmp_path):
    training = {"examples": 2048, "batch_size": 16, "adapter": {"name": "asymlora"}}
    with pytest.raises(ConfigError, match="--calibration-adapter lora"):
        run_study(spec(training=training), RunOptions(study=tmp_path / "study"))
    assert not list(tmp_path.iterdir())


def test_ranks_are_compared_by_another_adapter_only_where_that_is_asked_for(tmp_path):
    training = {"examples": 2048, "batch_size": 16, "adapter": {"name": "asymlora"}}
    search = {"strategy": {"name": "mars"}, "adapter": {"name": "lora"}}
    with Study.create(tmp_path, spec(training=training, search=search)) as study:
        line = Pipeline(study)
        final = line.plan_final()
    packs = json.loads((tmp_path / "plan" / "round-01.json").read_text())
    assert {pack["training"]["adapter"]["name"] for pack in packs} == {"lora"}
    assert final.training.adapter.name == "asymlora"
    assert final.start_folder is None


@pytest.mark.parametrize("limit", [Limit(seconds=1e-6), Limit(flops=1.0)])
def test_a_limit_ends_calibration_after_a_round_and_without_it_the_study_goes_on(tmp_path, limit):
    asked = spec("successive_halving")
    with Study.create(tmp_path, asked) as study:
        line = Pipeline(study, listener=(listener := RecordingListener()), options=RunOptions(limit=limit))
        early = line.decide()
        assert len({run.last_examples for run in study.runs()}) == 1  # the first rung alone
        assert line.decide() == early
        assert [note for note in listener.notes if "calibration ends here" in note]
    with Study.create(tmp_path, asked) as study:
        late = Pipeline(study).decide()
    assert late.calibration_full_runs > early.calibration_full_runs


def test_a_study_that_is_started_again_keeps_the_plans_of_its_first_start(tmp_path):
    asked, stop = spec("successive_halving"), RunOptions(limit=Limit(seconds=1e-6))
    with Study.create(tmp_path, asked) as study:
        Pipeline(study, options=stop).calibrate()
    (first,) = (tmp_path / "plan").glob("round-*.json")
    planned = first.read_text()
    with Study.create(tmp_path, asked) as study:
        Pipeline(study, listener=(listener := RecordingListener())).calibrate()
    assert first.read_text() == planned
    rounds = sorted(path.name for path in (tmp_path / "plan").glob("round-*.json"))
    assert rounds == [f"round-{number:02d}.json" for number in range(1, len(rounds) + 1)] and len(rounds) > 1
    assert any("round 2:" in stage for stage in listener.stages)
