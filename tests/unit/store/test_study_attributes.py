"""What the dashboard shows of a whole study."""

import optuna
from optuna.trial import TrialState

from marslora.core.allocation import Allocation, Space
from marslora.core.runs import FinalResult, MemberResult, Observation
from marslora.core.setting import Setting
from marslora.core.spec import MemberSpec
from marslora.store.trial_records import FULL_EXAMPLES, TRAINING_ROWS
from marslora.store.trials import Trials


def test_attributes_are_those_of_the_optuna_study(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    trials = Trials(url, "mine", Space.of({"vision": (0, 4)}), tmp_path)
    trials.describe({"verdict": "Too little was measured.", "chosen": "vision=4"})
    trials.describe({"verdict": "Clear."})
    trials.close()
    assert optuna.load_study(study_name="mine", storage=url).user_attrs == {"verdict": "Clear.", "chosen": "vision=4"}


def train(trials, name, until, *, rows=640, purpose="candidate run", **ranks):
    member = MemberSpec(
        id=name, allocation=Allocation.of(ranks), data_examples=rows, until_examples=until, purpose=purpose
    )
    trials.start(member)
    for examples, value in ((0, 3.0), (until, 1.0)):
        trials.observe(Observation(member=name, examples=examples, metric="validation_loss", value=value))
    trials.finish(MemberResult(member=name, status="complete", examples=until))


def test_only_full_runs_of_candidates_compete_in_a_dashboard(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    space = Space.of({"vision": (0, 4), "language": (4, 16)})
    trials = Trials(url, "mine", space, tmp_path)
    trials.describe({FULL_EXAMPLES: 640, TRAINING_ROWS: 640})
    train(trials, "full", 640, vision=0, language=16)
    train(trials, "short", 320, vision=4, language=16)
    train(trials, "few rows", 640, rows=64, vision=4, language=4)
    train(trials, "alone", 640, purpose="convergence of vision", vision=4, language=0)
    result = FinalResult(
        id="f",
        adapter_folder="",
        allocation=Allocation.of({"vision": 0, "language": 64}),
        num_trainable=1,
        base_validation_loss=3.0,
        base_validation_accuracy=0.0,
        validation_loss=0.5,
        validation_accuracy=1.0,
        examples=(0, 640),
        validation_curve=(3.0, 0.5),
    )
    for _ in range(2):
        trials.add_full_run("chosen setting", Setting(allocation=result.allocation), result)
    runs = trials.runs()
    trials.close()

    shown = optuna.load_study(study_name="mine", storage=url)
    states = [trial.state for trial in shown.trials]
    assert states == [TrialState.COMPLETE, *[TrialState.PRUNED] * 3, TrialState.COMPLETE]
    assert shown.best_trial.user_attrs["purpose"] == "chosen setting"
    assert shown.trials[3].user_attrs["purpose"] == "convergence of vision"
    assert shown.trials[4].intermediate_values == {0: 3.0, 640: 0.5}
    assert [(run.member.id, run.status, run.validation_loss) for run in runs] == [
        (name, "complete", (3.0, 1.0)) for name in ("full", "short", "few rows", "alone")
    ]
    again = Trials(url, "mine", space, tmp_path)
    assert again.runs() == runs
    again.close()
