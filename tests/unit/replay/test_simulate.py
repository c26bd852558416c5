"""Replaying charges what a strategy would have paid, and shows it what it would have seen."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marslora.core.allocation import Allocation
from marslora.core.decision import DecisionRecord
from marslora.core.errors import ConfigError
from marslora.core.schedule import few_evaluation_steps
from marslora.core.setting import Setting
from marslora.core.spec import VALIDATION_WORK
from marslora.replay.simulate import (
    MissingRunError,
    Simulation,
    average_train_loss,
    interpolate_loss,
    replay_strategy,
)
from marslora.replay.table import RunTable
from marslora.strategies import AbstractStrategy
from marslora.strategies.grid import GridStrategy
from marslora.strategies.random_search import RandomStrategy
from marslora.strategies.rate_sweep import RateSweepStrategy
from marslora.strategies.successive_halving import SuccessiveHalvingStrategy
from marslora.strategies.uniform import UniformStrategy
from tests.helpers.toy_tables import BATCH, BEST, FULL, POINTS, ROWS, entry, loss, table

CHEAP = Allocation.of(eye=2, bridge=4, tongue=4)


def member(instance, until, allocation=CHEAP, rows=ROWS, *, rate=None, validations="regular", **more):
    setting = Setting(allocation=allocation, learning_rate=rate)
    return instance.problem.member(setting, rows, until, "a test", validations=validations, **more)


def work(instance, examples, num_validations):
    """What training and validating cost together, in full runs."""
    problem = instance.problem
    return (examples + VALIDATION_WORK * problem.num_validation * num_validations) / problem.full_work


def test_a_prefix_costs_its_share_and_shows_its_points():
    instance = Simulation(table(), seed=1)
    run = instance.train(member(instance, 256), None)
    assert run.examples == (0, 16, 64, 256) and run.status == "complete"
    assert run.validation_loss == pytest.approx([loss(CHEAP, t, 1) for t in run.examples])
    assert (run.cost.examples, run.cost.seconds, run.cost.flops) == (256, pytest.approx(2.56), pytest.approx(256e6))
    assert instance.spent == run.cost


def test_going_on_pays_for_the_rest_alone():
    instance = Simulation(table(), seed=0)
    first = instance.train(member(instance, 256), None)
    second = instance.train(member(instance, 640), first)
    assert instance.spent.examples == second.cost.examples == 640
    assert second.cost.seconds == pytest.approx(6.4)
    assert second.examples == (0, 16, 64, 256, 640)


def test_a_run_that_went_on_keeps_the_point_at_which_it_had_ended():
    instance = Simulation(table(), seed=0)
    first = instance.train(member(instance, 320), None)
    assert first.examples[-1] == 320
    assert 320 in instance.train(member(instance, 640), first).examples


def test_what_is_there_already_costs_nothing_again():
    instance = Simulation(table(), seed=0)
    first = instance.train(member(instance, 640), None)
    again = instance.train(member(instance, 256), first)
    assert instance.spent.examples == 640 and again.last_examples == 640


def test_what_is_looked_at_is_what_the_member_says():
    for validations, looks in (("regular", (16, 64, 256, 320)), ("end", (320,)), ("few", ())):
        instance = Simulation(table(), seed=0)
        run = instance.train(member(instance, 320, validations=validations), None)
        assert run.examples == (0, *looks)
        assert run.train_examples == (16, 64, 256, 320) and run.last_examples == 320
        assert work(instance, 320, len(looks)) == pytest.approx(instance.work / instance.problem.full_work)
    longer = instance.train(member(instance, FULL, validations="few"), run)
    steps = few_evaluation_steps([t // BATCH for t in POINTS[1:]], BATCH, instance.problem.num_validation)
    assert longer.examples == (0, *(BATCH * step for step in steps)) and 1 < len(longer.examples) < len(POINTS)
    assert work(instance, FULL, len(steps)) == pytest.approx(instance.work / instance.problem.full_work)


def test_the_training_loss_is_the_mean_since_the_point_before():
    falling = entry(CHEAP, 0).model_copy(update={"train_loss": (4.0, 3.0, 2.5, 2.0, 1.5, 1.0)})
    at_points = [average_train_loss(falling, t) for t in POINTS[1:]]
    assert at_points == pytest.approx(falling.train_loss)
    assert 2.0 < average_train_loss(falling, 400) < 2.5  # the first part of an interval lies above its mean
    flat = entry(CHEAP, 0)
    assert average_train_loss(flat, 300) == pytest.approx(1.0)


def test_a_table_without_training_losses_has_none():
    bare = table()
    bare = RunTable(bare.header, tuple(each.model_copy(update={"train_loss": ()}) for each in bare))
    instance = Simulation(bare, seed=0)
    run = instance.train(member(instance, 256), None)
    assert run.train_loss == () and run.last_examples == 256


def test_every_rate_of_a_table_is_a_candidate_with_its_own_loss():
    rates = (5e-4, 1e-3, 2e-3)
    instance = Simulation(table(rates=rates, factors={"eye": (0.5, 1.0)}), seed=0)
    assert len(instance.problem.candidates()) == 16 * 3 * 2 == len(instance.truth.loss)
    best = instance.truth.best
    assert best.allocation.as_dict().items() >= BEST.items()
    assert (best.learning_rate, best.rate_of("eye")) == (1e-3, 5e-4)
    run = instance.train(member(instance, FULL, rate=2e-3), None)
    assert run.last_loss == pytest.approx(loss(CHEAP, FULL, 0) + 0.1)
    with pytest.raises(MissingRunError, match=r"no run of eye=2 bridge=4 tongue=4, learning rate 0.004 on 800 rows"):
        instance.train(member(instance, FULL, rate=4e-3), None)


def test_a_search_over_rates_is_charged_for_all_of_them():
    instance = Simulation(table(rates=(5e-4, 1e-3, 2e-3)), seed=0)
    outcome = replay_strategy(RateSweepStrategy(), instance)
    assert outcome.decision.learning_rate == 1e-3
    assert outcome.calibration == pytest.approx(3 * work(instance, FULL, 1))
    assert outcome.regret == instance.truth.regret(outcome.decision.setting)


def test_no_run_goes_further_than_it_was_measured():
    instance = Simulation(table(has_part_runs=True), seed=0)
    alone = Allocation.of(eye=16, bridge=0, tongue=0)
    run = instance.train(member(instance, FULL, alone, rows=ROWS // 8), None)
    assert run.last_examples == FULL // 2 and instance.spent.examples == FULL // 2 and run.status == "complete"


@given(examples=st.integers(1, FULL))
def test_between_two_points_the_loss_lies_between_theirs_on_a_line_in_logarithms(examples):
    found = entry(CHEAP, 0)
    after = next(n for n, t in enumerate(POINTS) if t >= examples)
    (t0, t1), (y0, y1) = POINTS[after - 1 : after + 1], found.validation_loss[after - 1 : after + 1]
    share = (math.log1p(examples) - math.log1p(t0)) / (math.log1p(t1) - math.log1p(t0))
    assert interpolate_loss(found, examples) == pytest.approx(y0 ** (1 - share) * y1**share)


def test_repeats_take_the_seeds_after_that_of_the_simulation():
    instance = Simulation(table(seeds=(3, 5)), seed=5)
    for repeat, seed in ((0, 5), (1, 3)):
        run = instance.train(member(instance, FULL, repeat=repeat), None)
        assert run.last_loss == pytest.approx(loss(CHEAP, FULL, seed))


def test_a_missing_run_is_named():
    instance = Simulation(table(), seed=0)
    with pytest.raises(
        MissingRunError, match=r"Table `toy` has no run of eye=2 bridge=4 tongue=4, learning rate 0.001 on 7 rows"
    ):
        instance.train(member(instance, 16, rows=7), None)


def test_a_limit_leaves_out_the_large():
    instance = Simulation(table(), seed=0, max_share=0.5)
    largest = 100 * (16 + 4 + 16)
    assert instance.problem.max_parameters == largest // 2
    assert 0 < len(instance.problem.candidates()) < 16
    assert set(instance.truth.loss) == set(instance.problem.candidates())
    assert replay_strategy(UniformStrategy(rank=16), instance).decision.setting in instance.truth.loss


def test_the_truth_is_the_mean_over_seeds():
    truth = Simulation(table(seeds=(0, 1, 2), luck=0.02), seed=0).truth
    assert truth.loss[Setting(allocation=CHEAP)] == pytest.approx(
        sum(loss(CHEAP, FULL, s, 0.02) for s in (0, 1, 2)) / 3
    )
    assert truth.best.allocation.as_dict().items() >= BEST.items()
    assert truth.regret(truth.best) == 0 and truth.best in truth.find_ties()
    assert len(Simulation(table(luck=0.2), seed=0).truth.find_ties()) > len(truth.find_ties())


@settings(max_examples=15, deadline=None)
@given(
    eta=st.integers(2, 4), rung=st.sampled_from((0.05, 0.1, 0.3)), seed=st.sampled_from((0, 1)), luck=st.floats(0, 0.2)
)
def test_a_search_costs_its_new_examples_and_the_rest_of_the_final_run(eta, rung, seed, luck):
    strategy = Recording(SuccessiveHalvingStrategy(eta=eta, first_rung=rung))
    instance = Simulation(table(luck=luck), seed=seed)
    outcome = replay_strategy(strategy, instance)
    new = sum(max(lengths) for lengths in strategy.asked.values())
    chosen = strategy.asked[outcome.decision.continue_run]
    looks = sum(map(len, strategy.asked.values()))  # a run is looked at wherever it once ended
    left = 1 - work(instance, max(chosen), 0)
    assert outcome.calibration == pytest.approx(work(instance, new, looks))
    assert outcome.cost == pytest.approx(outcome.calibration + left)
    assert outcome.seconds == pytest.approx(new / 100 + left * FULL / 100)
    assert instance.spent.examples == new


def test_nothing_measured_costs_one_run():
    outcome = replay_strategy(UniformStrategy(), Simulation(table(), seed=0))
    assert (outcome.cost, outcome.calibration, outcome.num_rounds) == (1.0, 0.0, 0)


@given(seed=st.integers(0, 20), luck=st.floats(0, 0.2))
@settings(max_examples=10, deadline=None)
def test_a_grid_never_regrets_where_its_seed_is_the_only_one(seed, luck):
    instance = Simulation(table(seeds=(seed,), luck=luck), seed=seed)
    outcome = replay_strategy(GridStrategy(), instance)
    assert outcome.regret == 0
    assert outcome.cost == pytest.approx(16 * work(instance, FULL, 1) + 1 - work(instance, FULL, 0))


def test_a_grid_can_be_wrong_about_other_seeds():
    instances = [Simulation(table(seeds=(0, 1, 2), luck=0.2), seed=seed) for seed in (0, 1, 2)]
    assert max(replay_strategy(GridStrategy(), instance).regret for instance in instances) > 0


def test_a_strategy_that_never_ends_is_an_error():
    class Restless(RandomStrategy):
        def propose(self, problem, runs):
            return [problem.member(problem.candidates()[0], ROWS, 64, "again")]

    with pytest.raises(ConfigError, match="Restless still asked for runs after 1000 rounds"):
        replay_strategy(Restless(), Simulation(table(), seed=0))


class Recording(AbstractStrategy):
    """Another strategy, with every length that it asked for by member."""

    def __init__(self, inner: AbstractStrategy) -> None:
        super().__init__()
        self.inner, self.asked = inner, dict[str, list[int]]()

    def propose(self, problem, runs):
        members = self.inner.propose(problem, runs)
        for each in members:
            self.asked.setdefault(each.id, []).append(each.until_examples)
        return members

    def decide(self, problem, runs) -> DecisionRecord:
        return self.inner.decide(problem, runs)
