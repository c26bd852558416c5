"""The storage of runs: one write registers a run, strays are mended, nothing stands under another run's name."""

import json

import optuna
import pytest
from optuna.trial import TrialState
from tests.helpers.kill_points import count_durable_operations
from tests.helpers.quick_sqlite import quick_sqlite  # noqa: F401
from tests.unit.store.test_study import member, observe, spec

from marslora.core.runs import Cost, MemberResult, Observation
from marslora.store import trials
from marslora.store.study import Study


def complete(study, name, until=32):
    study.trials.finish(MemberResult(member=name, status="complete", examples=until, cost=Cost(examples=until)))


def optuna_study(folder):
    return optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'study.db'}")


def write_checkpoint(folder, name, *points):
    path = folder / "members" / name / "state.json"
    path.parent.mkdir(parents=True)
    listed = [(examples, "validation_loss", loss) for examples, loss in points]
    path.write_text(json.dumps({"spec": member(id=name).model_dump(mode="json"), "points": listed}))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(trials, "WAIT_SECONDS", 0.0)


def test_runs_are_registered_in_one_write_and_each_is_finished_in_one(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        study.trials.start(member(id="first"))
        with count_durable_operations() as registered:
            study.trials.start(*(member(id=f"m{number}") for number in range(20)))
        assert registered == ["commit"]
        for number in range(20):
            observe(study, f"m{number}", (0, 2.0), (32, 1.0))
            with count_durable_operations() as finished:
                complete(study, f"m{number}")
            assert finished == ["commit"]


def test_losses_that_come_fast_are_written_together(tmp_path, monkeypatch):
    with Study.create(tmp_path, spec()) as study:
        study.trials.start(member(id="one"), member(id="two"))
        monkeypatch.setattr(trials, "WAIT_SECONDS", float("inf"))
        with count_durable_operations() as written:
            for examples in range(0, 320, 16):
                for name in ("one", "two"):
                    observe(study, name, (examples, 2.0 - examples / 1000))
                    observe_training(study, name, (examples + 1, 1.0))
        assert written == ["commit"]  # the first one, since nothing had been written for long
        with count_durable_operations() as written:
            study.trials._write_waiting()
        assert written == ["commit"]
        assert all(len(run.validation_loss) == len(run.train_loss) == 20 for run in study.runs())
        observe(study, "two", (320, 1.0))
        complete(study, "one")
    with Study.open(tmp_path) as study:
        assert [(run.status, run.last_examples) for run in study.runs()] == [("complete", 305), ("running", 320)]


def test_what_fails_is_not_half_written(tmp_path, monkeypatch):
    with Study.create(tmp_path, spec()) as study:
        study.trials.start(member())
        observe(study, "joint", (0, 2.0), (32, 1.5))
        monkeypatch.setattr(study.trials, "_close_trial", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            complete(study, "joint")
    with Study.create(tmp_path, spec()) as study:
        assert [run.status for run in study.runs()] == ["running"]
        study.trials.start(member())
        complete(study, "joint")
        assert [run.status for run in study.finished_runs()] == ["complete"]


def test_a_point_that_is_reported_again_is_not_written_again(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        study.trials.start(member())
        observe(study, "joint", (0, 2.0))
        with count_durable_operations() as written:
            observe(study, "joint", (0, 2.0))
        assert written == []


def test_strategies_see_only_what_has_ended(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        study.trials.start(member())
        observe(study, "joint", (0, 2.0), (32, 1.5))
        complete(study, "joint")
        study.trials.start(member(until_examples=64))
        observe(study, "joint", (64, 1.0))
        assert [run.examples for run in study.runs()] == [(0, 32, 64)]
        assert [run.examples for run in study.finished_runs()] == [(0, 32)]


def test_what_another_version_left_waiting_is_closed(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        study.trials.start(member())
    asked = member(id="other").model_dump(mode="json")
    optuna_study(tmp_path).enqueue_trial({"vision": 2, "language": 8}, user_attrs={"member": asked})
    optuna_study(tmp_path).ask()  # takes the waiting trial, whatever it was meant for
    optuna_study(tmp_path).enqueue_trial({"vision": 2, "language": 8}, user_attrs={"member": asked})
    with Study.create(tmp_path, spec()) as study:
        study.trials.start(member())
        study.trials.start(member(id="other"))
        observe(study, "other", (0, 2.0))
        assert {run.member.id: run.examples for run in study.runs()} == {"joint": (), "other": (0,)}
    states = [trial.state for trial in optuna_study(tmp_path).trials]
    assert states == [TrialState.RUNNING, TrialState.FAIL, TrialState.FAIL, TrialState.RUNNING]


def test_a_run_that_ended_is_closed_after_a_kill(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        study.trials.start(member())
        observe(study, "joint", (0, 2.0), (32, 1.5))
        study.trials._close_trial = lambda *_: None  # killed between the two writes
        complete(study, "joint")
        assert study.finished_runs()[0].status == "complete"
    Study.create(tmp_path, spec()).trials.close()
    (trial,) = optuna_study(tmp_path).trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 1.5)


def test_losses_of_another_run_are_not_used(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        for name, loss in (("one", 1.5), ("two", 9.5)):
            study.trials.start(member(id=name))
            observe(study, name, (0, 2.0), (32, loss))
            complete(study, name)
    write_checkpoint(tmp_path, "one", (0, 2.0), (32, 1.5))
    write_checkpoint(tmp_path, "two", (0, 2.0), (32, 1.25))
    with Study.create(tmp_path, spec()) as study:
        assert [run.member.id for run in study.finished_runs()] == ["one"]
        assert "another run than two" in study.trials.notes[0]
        study.trials.start(member(id="two"))
        observe(study, "two", (0, 2.0), (32, 1.25))
        complete(study, "two")
    with Study.open(tmp_path) as study:
        losses = {run.member.id: run.validation_loss for run in study.runs()}
    assert losses == {"one": (2.0, 1.5), "two": (2.0, 1.25)}


def test_a_trial_with_other_ranks_than_its_member_is_not_used(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        study.trials.start(member())
        swapped = member(id="other", allocation={"vision": 8, "language": 8})
        study.trials._parameters = lambda _: {"vision": 2, "language": 8}
        study.trials.start(swapped)
        complete(study, "other")
    with Study.create(tmp_path, spec()) as study:
        assert [run.member.id for run in study.runs()] == ["joint"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"spec": 1}'])
def test_a_damaged_checkpoint_contradicts_nothing(tmp_path, damage):
    with Study.create(tmp_path, spec()) as study:
        study.trials.start(member())
        observe(study, "joint", (0, 2.0))
    write_checkpoint(tmp_path, "joint", (0, 7.0))
    (tmp_path / "members" / "joint" / "state.json").write_text(damage)
    with Study.create(tmp_path, spec()) as study:
        assert len(study.runs()) == 1


def test_a_run_that_failed_is_forgotten_by_the_next_start(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        study.trials.start(member())
        observe(study, "joint", (0, 2.0), (32, 1.5))
        complete(study, "joint")
        study.trials.start(member(until_examples=64))
        study.trials.finish(MemberResult(member="joint", status="failed", examples=32, message="no room"))
        assert study.finished_runs()[0].status == "failed"
    with Study.open(tmp_path) as study:
        assert study.runs()[0].status == "failed"
    with Study.create(tmp_path, spec()) as study:
        assert [(run.status, run.examples) for run in study.finished_runs()] == [("complete", (0, 32))]


def observe_training(study, name, *points):
    for examples, value in points:
        study.trials.observe(Observation(member=name, examples=examples, metric="train_loss", value=value))


def test_training_losses_come_back_also_of_interrupted_runs(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        study.trials.start(member())
        observe(study, "joint", (0, 2.0))
        observe_training(study, "joint", (16, 1.8), (24, 1.7))
    with Study.create(tmp_path, spec()) as study:
        (run,) = study.runs()
        assert (run.status, run.train_examples, run.train_loss) == ("running", (16, 24), (1.8, 1.7))
        assert run.last_examples == 24
        study.trials.start(member())
        with count_durable_operations() as written:
            observe_training(study, "joint", (16, 1.8), (24, 1.7))  # as a continued member reports them
        assert written == []
        observe_training(study, "joint", (32, 1.6))
        complete(study, "joint")
    with Study.create(tmp_path, spec()) as study:
        (run,) = study.finished_runs()
    assert (run.train_examples, run.train_loss) == ((16, 24, 32), (1.8, 1.7, 1.6))


def test_a_run_that_went_on_has_no_training_loss_up_to_its_first_end(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        study.trials.start(member(until_examples=24))
        observe_training(study, "joint", (16, 1.8), (24, 1.7))
        complete(study, "joint", 24)
        study.trials.start(member(until_examples=40))
        assert study.runs()[0].train_examples == (16, 24)
        observe_training(study, "joint", (16, 1.8), (32, 1.6), (40, 1.5))
        complete(study, "joint", 40)
        (run,) = study.runs()
    assert (run.train_examples, run.train_loss) == ((16, 32, 40), (1.8, 1.6, 1.5))


def test_learning_rates_are_parameters_of_a_trial(tmp_path):
    with Study.create(tmp_path, spec()) as study:
        study.trials.start(member(id="plain"))
        study.trials.start(member(id="one", learning_rate=1e-3))
        study.trials.start(member(id="own", learning_rate=1e-3 / 3, part_learning_rates={"vision": 7.1e-4 / 3}))
        for name in ("plain", "one", "own"):
            observe(study, name, (0, 2.0))
            complete(study, name)
    with Study.create(tmp_path, spec()) as study:
        assert study.trials.notes == []
        assert [run.member.learning_rate for run in study.runs()] == [None, 1e-3, 1e-3 / 3]
    plain, one, own = (trial.params for trial in optuna_study(tmp_path).get_trials())
    assert "learning_rate" not in plain and one == {**plain, "learning_rate": 1e-3}
    assert own == {**plain, "learning_rate": 1e-3 / 3, "learning_rate.vision": 7.1e-4 / 3}
