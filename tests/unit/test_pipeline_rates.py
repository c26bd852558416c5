"""A study whose learning rates are searched, what it costs, and whether its prediction holds."""

import contextlib

import pytest

from marslora.checks import check_study
from marslora.core.errors import ConfigError
from marslora.core.promise import Promise
from marslora.core.schedule import evaluation_steps, final_evaluation_steps
from marslora.core.spec import VALIDATION_WORK, FinalSpec
from marslora.pipeline import Pipeline
from marslora.run_options import RunOptions
from marslora.store.checkpoints import STATE_FILE
from marslora.store.study import Study
from tests.helpers import fake_training
from tests.helpers.cached_fits import cached_fits  # noqa: F401
from tests.helpers.listeners import RecordingListener
from tests.helpers.quick_sqlite import quick_sqlite  # noqa: F401
from tests.unit.test_pipeline import fakes, spec  # noqa: F401


def rated(strategy, rates, **changes):
    training = {"examples": 2048, "batch_size": 16, "learning_rate": fake_training.BEST_RATE}
    return spec(strategy, training=training, learning_rates=rates, **changes)


def test_the_problem_counts_the_validations_of_the_final_run(tmp_path):
    factors = {"vision": (0.5, 1.0)}
    with Study.create(tmp_path, rated("grid", (5e-4, 1e-3), part_rate_factors=factors)) as study:
        problem, training = Pipeline(study).problem, study.spec.training
    looks = final_evaluation_steps(128, training.evaluations)
    assert (problem.num_validation, problem.full_validations) == (64, len(looks))
    assert problem.full_work == 2048 + VALIDATION_WORK * 64 * len(looks)
    assert (problem.learning_rates, problem.part_rate_factors) == ((5e-4, 1e-3), (("vision", (0.5, 1.0)),))
    assert {each.rate_of("vision") for each in problem.candidates()} == {2.5e-4, 5e-4, 1e-3}


def test_factors_of_an_unknown_part_are_refused(tmp_path):
    with (
        Study.create(tmp_path, rated("grid", (1e-3,), part_rate_factors={"audio": (1.0,)})) as study,
        pytest.raises(ConfigError, match="`audio` is not a part of FakeLlava"),
    ):
        Pipeline(study).decide()


def test_the_final_run_and_the_baseline_train_at_the_chosen_rates(tmp_path):
    space = {"vision": [4, 16], "projector": [16], "language": [4, 16]}
    factors = {"vision": (0.25, 0.5)}
    with Study.create(tmp_path, rated("grid", (5e-4, 1e-3, 2e-3), part_rate_factors=factors, space=space)) as study:
        line = Pipeline(study)
        decision = line.decide()
        checkpoint = tmp_path / "members" / decision.continue_run
        checkpoint.mkdir(parents=True)
        (checkpoint / STATE_FILE).write_text("{}")
        final = line.plan_final()
        line.train_uniform()
    assert decision.chosen.as_dict() == {"vision": 4, "projector": 16, "language": 16}
    assert decision.learning_rate == 1e-3 and set(decision.part_learning_rates) == {"vision"}
    assert final.training.learning_rate == 1e-3
    assert final.training.part_learning_rates == decision.part_learning_rates
    assert final.start_folder == str(checkpoint)
    uniform = FinalSpec.load(tmp_path / "plan" / "uniform.json")
    assert uniform.training == final.training


def test_a_run_that_diverges_is_a_run_and_the_study_goes_on(tmp_path):
    listener, rates = RecordingListener(), (1e-3, fake_training.TOO_HIGH)
    with Study.create(tmp_path, rated("grid", rates)) as study:
        decision = Pipeline(study, listener=listener).decide()
        status = {run.status: run.member.learning_rate for run in study.finished_runs()}
    assert status == {"complete": 1e-3, "diverged": fake_training.TOO_HIGH}
    assert (decision.learning_rate, decision.verdict) == (1e-3, "clear")
    assert sum("diverged: loss became NaN" in note for note in listener.notes) == 16
    with Study.create(tmp_path, rated("grid", rates)) as study:
        again = RecordingListener()
        assert Pipeline(study, listener=again).decide() == decision
        assert not any(stage.startswith("Calibration") for stage in again.stages)  # they are not trained again


def test_new_work_counts_validations(tmp_path):
    with Study.create(tmp_path, spec("grid")) as study:
        line = Pipeline(study)
        setting = line.problem.candidates()[0]
        work = {
            validations: line._count_new_work(
                line.problem, [line.problem.member(setting, 512, 2048, "", validations=validations)], []
            )
            for validations in ("end", "regular")
        }
    looks = evaluation_steps(128, study.spec.training.evaluations)
    assert work == {"end": 2048 + VALIDATION_WORK * 64, "regular": 2048 + VALIDATION_WORK * 64 * len(looks)}


@pytest.mark.parametrize(("strategy", "known"), [("mars", True), ("grid", False)])
def test_what_was_predicted_is_compared_with_what_came_out(tmp_path, strategy, known):
    with Study.create(tmp_path, spec(strategy)) as study:
        line = Pipeline(study)
        decision, final = line.decide(), line.train()
        promise = study.read("promise.json", Promise)
    assert (promise is not None) is known
    if promise:
        assert (promise.setting, promise.ended) == (decision.setting, final.validation_loss)
        assert promise.predicted == decision.chosen_candidate.predicted_loss


@pytest.mark.parametrize(
    ("space", "rates", "factors", "is_refused"),
    [
        ({"vision": [16], "language": [16]}, (), {}, False),
        ({"vision": [16], "language": [16]}, (1e-3,), {}, False),
        ({"vision": [0], "language": [0, 16]}, (), {}, False),  # rank 0 everywhere is no candidate
        ({"vision": [16], "language": [0, 16]}, (), {}, True),
        ({"vision": [16], "language": [16]}, (5e-4, 1e-3), {}, True),
        ({"vision": [16], "language": [16]}, (1e-3,), {"vision": (0.5, 1.0)}, True),
    ],
)
def test_an_adapter_must_train_packed_wherever_there_is_a_choice(space, rates, factors, is_refused):
    training = {"examples": 2048, "batch_size": 16, "learning_rate": 1e-3, "adapter": {"name": "asymlora"}}
    asked = spec(space=space, training=training, learning_rates=rates, part_rate_factors=factors)
    refuses = pytest.raises(ConfigError, match=r"`--calibration-adapter lora`.*`--strategy uniform`")
    with refuses if is_refused else contextlib.nullcontext():
        check_study(asked, RunOptions())
