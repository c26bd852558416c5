import pytest

from marslora.strategies.successive_halving import SuccessiveHalvingStrategy
from marslora.testing.toy_training import CLEAR, replay


def test_sixteen_candidates_cost_what_the_arithmetic_says():
    problem = CLEAR.problem(full_examples=16 * 64 * 16)
    strategy = SuccessiveHalvingStrategy()
    runs = replay(strategy, CLEAR, problem)
    # 16 runs of 1/64, of which 4 go on to 1/16; the winner of these is trained to the end by the final run.
    assert problem.spent(runs) == pytest.approx(16 / 64 + 4 * (1 / 16 - 1 / 64))
    assert sorted({run.last_examples for run in runs}) == [256, 1024]
    decision = strategy.decide(problem, runs)
    assert decision.continue_run is not None
    assert sum(candidate.status == "dropped" for candidate in decision.candidates) == 12
