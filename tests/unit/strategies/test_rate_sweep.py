import dataclasses

import pytest

from marslora.core.errors import ConfigError
from marslora.strategies.rate_sweep import RateSweepStrategy
from marslora.testing.toy_training import CLEAR, replay

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


def search(rates, **options):
    problem, strategy = CLEAR.problem(learning_rates=rates), RateSweepStrategy(**options)
    runs = replay(strategy, CLEAR, problem)
    return problem, runs, strategy.decide(problem, runs)


def test_one_rank_is_trained_in_full_at_rates_spread_over_the_ladder():
    problem, runs, decision = search(RATES)
    assert [run.member.learning_rate for run in runs] == [1e-4, 1e-3, 3e-3, 3e-2]
    assert {run.last_examples for run in runs} == {problem.full_examples}
    assert {run.member.allocation for run in runs} == {decision.chosen}
    assert decision.chosen.as_dict() == {"eye": 16, "tongue": 16}


def test_the_rate_of_the_lowest_loss_is_chosen_with_its_run():
    _, runs, decision = search(RATES)
    best = min(runs, key=lambda run: run.best_loss).member
    assert (decision.learning_rate, decision.continue_run) == (best.learning_rate, best.id) == (1e-3, best.id)


@pytest.mark.parametrize(("rates", "trained"), [((), [None]), (RATES[:2], list(RATES[:2]))])
def test_a_short_ladder_is_trained_whole(rates, trained):
    _, runs, _ = search(rates)
    assert [run.member.learning_rate for run in runs] == trained


def test_the_number_of_rates_is_an_option():
    assert len(search(RATES, num_rates=2)[1]) == 2
    with pytest.raises(
        ConfigError, match="`num_rates` of RateSweepStrategy must be a whole number of at least 1, found 0"
    ):
        RateSweepStrategy(num_rates=0)


def test_the_nearest_rank_is_taken_where_there_is_none():
    problem = dataclasses.replace(CLEAR.problem(learning_rates=RATES), max_parameters=1200)
    members = RateSweepStrategy().propose(problem, [])
    assert len({member.allocation for member in members}) == 1
    assert max(map(problem.count_parameters, problem.allocations())) <= 1200
