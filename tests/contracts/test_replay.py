"""Every strategy can be replayed on a table of finished runs."""

import pytest

from marslora import strategies
from marslora.core import kinds
from marslora.replay.contest import Entrant, score
from marslora.replay.simulate import World, replay
from tests.unit.replay.tables import table

TOY = table(has_arms=True)


@pytest.mark.parametrize("name", kinds.names(strategies))
def test_every_strategy_is_replayed(name):
    entrant, world = Entrant(name, name, budget=0.8), World(TOY, seed=1, budget=0.8)
    outcome = replay(entrant.make(), world)
    found = score(entrant, world, outcome)
    assert outcome.decision.chosen in world.truth.loss
    assert found.cost == pytest.approx(outcome.cost) and 1.0 <= found.cost <= 17
    assert found.calibration == pytest.approx(world.spent.run_equivalents(TOY.header.full_examples))
    assert 0 <= found.regret <= max(map(world.truth.regret, world.truth.loss))
    assert found.is_best or found.regret > 0
    if name == "grid":
        assert found.is_best and found.calibration == 16
