"""The search by BoTorch's Gaussian process of learning curves, on simulated training."""

import dataclasses
import importlib

import numpy as np
import pytest

from marslora.core.errors import ConfigError
from marslora.strategies import _kronecker_model
from marslora.strategies._kronecker_model import describe_settings, measure_trend
from marslora.strategies.kronecker_gp import KroneckerGpStrategy
from marslora.strategies.random_search import RandomStrategy
from marslora.testing.toy_training import CLEAR, TRIO, replay


@pytest.fixture
def botorch():
    return pytest.importorskip("botorch", reason="kronecker_gp needs BoTorch: pip install 'marslora[bench]'")


def search(strategy, toy, budget):
    """The regret of a search, and what it cost."""
    problem = toy.problem(budget=budget)
    runs = replay(strategy, toy, problem)
    return toy.regret(problem, strategy.decide(problem, runs).setting), problem.spent(runs)


def test_it_beats_random_search_of_more_than_its_cost(botorch):
    toys = [dataclasses.replace(TRIO, seed=seed) for seed in range(3)]
    own = [search(KroneckerGpStrategy(batch=3, max_rounds=4), toy, 0.5) for toy in toys]
    others = [search(RandomStrategy(), toy, 2) for toy in toys]
    assert all(cost <= 0.5 * 1.01 for _, cost in own)
    assert sum(regret for regret, _ in own) < 0.5 * sum(regret for regret, _ in others)


def test_the_random_numbers_of_torch_are_left_as_they_were(botorch):
    torch = importlib.import_module("torch")
    problem = CLEAR.problem(budget=0.2)
    before = torch.get_rng_state()
    KroneckerGpStrategy(max_rounds=2).decide(problem, replay(KroneckerGpStrategy(), CLEAR, problem))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_botorch_the_extra_is_named_before_anything_is_trained(monkeypatch):
    def refuse(name, *_):
        raise ImportError(f"No module named {name!r}")

    _kronecker_model.import_botorch.cache_clear()
    monkeypatch.setattr(_kronecker_model.importlib, "import_module", refuse)
    with pytest.raises(ConfigError, match=r"No module named 'botorch.*marslora\[bench\]"):
        KroneckerGpStrategy().propose(CLEAR.problem(), [])


@pytest.mark.parametrize("options", [{"acquisition": "luck"}, {"curves": "none"}, {"growth": 1.0}, {"batch": 0}])
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(ConfigError, match=f"`{next(iter(options))}`.* must be"):
        KroneckerGpStrategy(**options)


def test_settings_are_described_from_0_to_1():
    problem = dataclasses.replace(CLEAR.problem(), learning_rates=(1e-4, 1e-3, 1e-2))
    x_CF = describe_settings(problem)
    assert x_CF.shape == (48, 3)
    assert x_CF.min() == 0 and x_CF.max() == 1
    np.testing.assert_allclose(np.unique(x_CF[:, 2].round(6)), [0, 0.5, 1])


def test_the_trend_is_what_all_curves_share_though_they_end_early():
    shared_T, level_N = np.array([0.5, -0.2, -0.6]), np.array([0.3, 0.1, -0.4])
    y_NT = level_N[:, None] + shared_T
    y_NT[0, 1:] = y_NT[1, 2] = np.nan
    trend_T, end = measure_trend(y_NT, np.array([0.0, 0.4, 0.8]))
    np.testing.assert_allclose(np.diff(trend_T), np.diff(shared_T))
    assert end < trend_T[-1]
