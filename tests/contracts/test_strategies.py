"""What every strategy promises, on simulated training."""

import dataclasses

import pytest

from marslora import strategies
from marslora.core import plugins
from marslora.core.allocation import Space
from marslora.core.errors import ConfigError
from marslora.strategies import AbstractStrategy
from marslora.testing import StrategyContract
from marslora.testing.toy_training import CLEAR
from tests.helpers.cached_fits import cached_fits  # noqa: F401

NAMES = plugins.names(strategies)


class TestStrategy(StrategyContract):
    """Every plugin of the folder."""

    @pytest.fixture(params=NAMES)
    def strategy(self, request) -> AbstractStrategy:
        if request.param == "kronecker_gp":
            pytest.importorskip("botorch", reason="kronecker_gp needs BoTorch: pip install 'marslora[bench]'")
        return plugins.load(strategies, request.param, AbstractStrategy)()


def test_strategies_are_listed():
    assert {"mars", "grid", "uniform", "random_search", "successive_halving"} <= set(NAMES)


@pytest.mark.parametrize("name", ["successive_halving", "asha"])
@pytest.mark.parametrize("options", [{"eta": 1}, {"eta": 0}, {"first_rung": 0.0}, {"first_rung": 2}])
def test_rungs_that_would_never_end_are_refused(name, options):
    ((option, value),) = options.items()
    kind = plugins.load(strategies, name, AbstractStrategy)
    limits = {"eta": "of at least 2", "first_rung": "above 0 and of at most 1"}
    with pytest.raises(ConfigError, match=f"`{option}` of {kind.__name__} must be .* {limits[option]}, found {value}"):
        kind(**options)


def test_a_problem_without_allocations_or_budget_is_refused():
    problem = CLEAR.problem()
    with pytest.raises(ConfigError, match="found only rank 0"):
        dataclasses.replace(problem, space=Space.of(dict.fromkeys(problem.space.parts, (0,))))
    with pytest.raises(ConfigError, match="`budget` must be above 0 full runs, found -1"):
        CLEAR.problem(budget=-1)
