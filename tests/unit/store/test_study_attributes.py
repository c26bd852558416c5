"""What the dashboard shows of a whole study."""

import optuna

from marslora.core.allocation import Space
from marslora.store.trials import Trials


def test_attributes_are_those_of_the_optuna_study(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    trials = Trials(url, "mine", Space.of({"vision": (0, 4)}), tmp_path)
    trials.describe({"verdict": "Too little was measured.", "chosen": "vision=4"})
    trials.describe({"verdict": "Clear."})
    trials.close()
    assert optuna.load_study(study_name="mine", storage=url).user_attrs == {"verdict": "Clear.", "chosen": "vision=4"}
