"""The examples in the manuals of strategies, laws and replays run and print what they say."""

import re

import pytest
from tests.helpers.manuals import run_examples
from tests.helpers.toy_tables import BEST, table

from marslora import laws, replay, strategies
from marslora.replay import Simulation, replay_strategy


@pytest.mark.parametrize("package", [laws, replay])
def test_the_examples_print_what_they_say(package, capsys):
    run_examples(package)
    promised = re.findall(r"print\(.*\)  # (.*)", package.__doc__)
    assert promised and capsys.readouterr().out.splitlines() == promised


def test_the_strategy_of_the_example_searches():
    kind = run_examples(strategies)["ShortGrid"]
    outcome = replay_strategy(kind(share=0.5), Simulation(table(), seed=0))
    assert outcome.decision.chosen.as_dict().items() >= BEST.items()
    assert outcome.calibration == pytest.approx(8, rel=0.05)
