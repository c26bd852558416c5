"""The curves of the calibration runs as trackers get them."""

import sys
from types import SimpleNamespace

import pytest

from marslora.core.allocation import Allocation
from marslora.core.runs import CalibrationRuns, Run
from marslora.core.spec import MemberSpec
from marslora.finetune import calibration_trackers as trackers


def make_run(name, rate):
    member = MemberSpec(
        id=name,
        allocation=Allocation.of(vision=4, language=16),
        until_examples=64,
        data_examples=64,
        learning_rate=rate,
    )
    return Run(
        member=member,
        status="complete",
        examples=(0, 64),
        validation_loss=(2.0, 1.0),
        train_examples=(32, 64),
        train_loss=(1.8, 1.2),
    )


def make_spec(tmp_path, *names):
    return CalibrationRuns(
        trackers=names, project="study", folder=str(tmp_path), runs=(make_run("a", 1e-3), make_run("b", 2e-3))
    )


def test_losses_of_a_point_are_together_and_in_order():
    assert list(trackers.list_points(make_run("a", 1e-3))) == [
        (0, {"eval/loss": 2.0}),
        (32, {"train/loss": 1.8}),
        (64, {"eval/loss": 1.0, "train/loss": 1.2}),
    ]


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_every_member_is_a_run_of_one_group(name, tmp_path, monkeypatch):
    begun, logged, ended = [], [], []
    run = SimpleNamespace(log=lambda losses, step: logged.append(step), finish=lambda: ended.append(1))
    fake = SimpleNamespace(init=lambda **given: begun.append(given) or run, log=run.log, finish=run.finish)
    monkeypatch.setitem(sys.modules, name, fake)
    trackers.report(make_spec(tmp_path, name, "mlflow"), lambda _: None)
    assert [(each["project"], each["group"], each["config"]["learning_rate"]) for each in begun] == [
        ("study", "calibration", 1e-3),
        ("study", "calibration", 2e-3),
    ]
    assert logged == [0, 32, 64] * 2 and len(ended) == 2


def test_tensorboard_gets_a_folder_for_each_member(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # a second decision replaces the first
        trackers.report(make_spec(tmp_path, "tensorboard"), lambda _: None)
    folders = sorted((tmp_path / "tensorboard" / "calibration").iterdir())
    assert len(folders) == 2 and folders[0].name.endswith(" a")
    events = EventAccumulator(str(folders[0]))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("eval/loss")] == [(0, 2.0), (64, 1.0)]
