"""The examples in the manuals of strategies, laws and replays run and print what they say."""

import re

import pytest
from tests.helpers.manuals import run_examples
from tests.helpers.toy_tables import BEST, FULL, table

from marslora import laws, replay, strategies
from marslora.core.spec import VALIDATION_WORK
from marslora.replay import Simulation, replay_strategy


@pytest.mark.parametrize("package", [laws, replay])
def test_the_examples_print_what_they_say(package, capsys):
    run_examples(package)
    promised = re.findall(r"print\(.*\)  # (.*)", package.__doc__)
    assert promised and capsys.readouterr().out.splitlines() == promised


def test_the_strategy_of_the_example_searches():
    kind = run_examples(strategies)["ShortGrid"]
    instance = Simulation(table(), seed=0)
    outcome = replay_strategy(kind(share=0.5), instance)
    assert outcome.decision.chosen.as_dict().items() >= BEST.items()
    work = instance.spent.examples + VALIDATION_WORK * instance.problem.num_validation * 16
    assert instance.spent.examples == pytest.approx(8 * FULL, rel=0.05)
    assert outcome.calibration == pytest.approx(work / instance.problem.full_work)
