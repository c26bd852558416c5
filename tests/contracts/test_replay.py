"""Every strategy can be replayed on a table of finished runs."""

import pytest

from marslora import strategies
from marslora.core import plugins
from marslora.core.spec import VALIDATION_WORK
from marslora.replay import Searcher
from marslora.replay.benchmark import score_outcome
from marslora.replay.simulate import Simulation, replay_strategy
from tests.helpers.toy_tables import FULL, table

TOY = table(has_part_runs=True)


@pytest.mark.parametrize("name", plugins.names(strategies))
def test_every_strategy_is_replayed(name):
    if name == "kronecker_gp":
        pytest.importorskip("botorch", reason="kronecker_gp needs BoTorch: pip install 'marslora[bench]'")
    entrant, instance = Searcher(name, name, budget=0.8), Simulation(TOY, seed=1, budget=0.8)
    outcome = replay_strategy(entrant.make_strategy(), instance)
    found = score_outcome(entrant, instance, outcome)
    assert outcome.decision.setting in instance.truth.loss
    assert found.cost == pytest.approx(outcome.cost) and 1.0 <= found.cost <= 17
    assert found.calibration == pytest.approx(instance.work / instance.problem.full_work)
    assert instance.work >= instance.spent.examples
    assert 0 <= found.regret <= max(map(instance.truth.regret, instance.truth.loss))
    assert found.is_best or found.regret > 0
    if name == "grid":
        one = FULL + VALIDATION_WORK * instance.problem.num_validation  # looked at once, at its end
        assert found.is_best and found.calibration == pytest.approx(16 * one / instance.problem.full_work)
