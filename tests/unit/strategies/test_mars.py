"""The search by the law of settings on simulated training."""

import dataclasses

import numpy as np
import pytest

from marslora.core.allocation import Space
from marslora.core.runs import Run
from marslora.laws.setting_law import UNKNOWN_START
from marslora.strategies._design import cover_best
from marslora.strategies._knobs import measure_effects
from marslora.strategies._reference import find_final_length, find_incumbent, find_reference
from marslora.strategies._setting_decision import decide_setting
from marslora.strategies._setting_predictions import MOST_POINTS, favour_reference, make_measurements
from marslora.strategies.mars import DEFAULT_COST, LAST_LENGTH, MarsStrategy, list_neighbours
from marslora.strategies.ranks_only import RanksOnlyStrategy
from marslora.testing.toy_training import CLEAR, TRIO, replay

RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)


FOUND = {}
"""Searches that several tests look at."""


def search(toy, budget=None, strategy=None, **more):
    key = repr((toy, budget, strategy and strategy.config, more))
    if key not in FOUND:
        strategy = strategy or MarsStrategy()
        toy = dataclasses.replace(toy, num_validation=64)
        problem = toy.problem(budget=budget, learning_rates=RATES, full_validations=12, **more)
        runs = replay(strategy, toy, problem)
        FOUND[key] = problem, runs, strategy.decide(problem, runs)
    return FOUND[key]


@pytest.mark.parametrize("toy", [CLEAR, TRIO], ids=["pair", "trio"])
def test_a_good_setting_is_found_at_a_fraction_of_a_run(toy):
    regrets = []
    for seed in range(2):
        own = dataclasses.replace(toy, seed=seed)
        problem, _, decision = search(own)
        regrets.append(own.regret(problem, decision.setting))
    losses = toy.final(problem).values()
    assert np.mean(regrets) < 0.1 * (max(losses) - min(losses))


@pytest.mark.parametrize("budget", [0.15, 0.5, 1.0, 2.0])
def test_the_budget_is_kept_validations_included(budget):
    problem, runs, decision = search(CLEAR, budget)
    assert problem.spent(runs) <= budget * 1.02
    assert decision.calibration_full_runs == pytest.approx(problem.spent(runs))


def test_the_default_budget_is_kept_too():
    problem, runs, _ = search(CLEAR)
    assert problem.spent(runs) <= DEFAULT_COST * 1.02


def test_the_choice_goes_on_alone_at_last():
    _, without, _ = search(CLEAR, 0.5, MarsStrategy(last_share=0.0))
    problem, runs, decision = search(CLEAR, 0.5)
    own = next(run for run in runs if run.member.setting == decision.setting)
    others = [run.last_examples for run in runs if run is not own]
    assert own.last_examples > max(others)
    assert own.last_examples > max(run.last_examples for run in without)
    assert own.last_examples <= LAST_LENGTH * problem.full_examples
    assert decision.continue_run == own.member.id


@pytest.mark.parametrize(("factor", "budget"), [(0.5, 2.0), (2.0, 2.0), (2.0, 6.0)])
def test_where_the_budget_pays_the_rate_that_leads_a_final_is_taken(factor, budget):
    problem, runs, decision = search(dataclasses.replace(CLEAR, best_rate=1e-3 * factor), budget)
    length, reference = find_final_length(problem), find_reference(problem)
    finalists = [run for run in runs if length in run.examples]
    ranks = problem.candidates()[reference].allocation
    rates = {run.member.learning_rate for run in finalists if run.member.allocation == ranks}
    assert rates == {5e-4, 1e-3, 2e-3}
    lowest = min(finalists, key=lambda run: run.validation_loss[run.examples.index(length)])
    assert problem.candidates()[find_incumbent(problem, runs)] == lowest.member.setting
    assert decision.learning_rate == lowest.member.learning_rate


def test_a_reference_that_diverged_is_not_taken():
    problem = CLEAR.problem(learning_rates=RATES)
    reference = problem.candidates()[find_reference(problem)]

    def run_at(rate, status):
        member = problem.member(problem.make_setting(reference.allocation, rate), problem.num_train, 400, "test")
        return Run(member=member, status=status, examples=(0, 400), validation_loss=(5.0, 4.0))

    ended = [run_at(1e-3, "diverged")]
    assert problem.candidates()[find_incumbent(problem, ended)].learning_rate == 5e-4
    assert problem.candidates()[find_incumbent(problem, [run_at(1e-3, "complete")])] == reference
    ended.append(run_at(5e-4, "complete"))  # without any usable run, a fallback is said
    decision = decide_setting("mars", problem, ended, _draw_equal(problem))
    assert decision.fallback is None and decision.setting != reference


def _draw_equal(problem):
    return 2.0 + 0.1 * np.random.default_rng(0).normal(size=(500, len(problem.candidates())))


def test_a_small_budget_has_no_final():
    problem, runs, _ = search(CLEAR, 0.5)
    assert not [run for run in runs if find_final_length(problem) in run.examples]
    assert find_incumbent(problem, runs) == find_reference(problem)


def test_validation_takes_at_most_15_percent():
    problem, runs, _ = search(CLEAR, 1.0)
    trained = sum(run.last_examples for run in runs)
    assert 0 < problem.work(runs) - trained <= 0.15 * problem.work(runs)


def test_the_usual_setting_is_begun_where_more_than_two_are():
    _, runs, _ = search(CLEAR, 2.0)
    assert any(set(r.member.allocation.as_dict().values()) == {16} and r.member.learning_rate == 1e-3 for r in runs)


def test_what_was_measured_moves_the_expected_rate():
    def expect_log_rate(best_rate):
        decision = search(dataclasses.replace(CLEAR, best_rate=best_rate), 2.0)[2]
        assert "learning rate" in {effect.knob for effect in decision.effects}
        return sum(each.p_best * np.log(each.learning_rate) for each in decision.candidates)

    assert expect_log_rate(2.5e-4) < expect_log_rate(4e-3)


def test_the_reference_is_taken_unless_another_is_surely_better():
    problem = CLEAR.problem(learning_rates=RATES)
    runs = replay(MarsStrategy(), CLEAR, problem)
    reference = problem.candidates()[find_reference(problem)]
    assert set(reference.allocation.as_dict().values()) == {16} and reference.learning_rate == 1e-3
    draws = np.random.default_rng(0).normal(size=(1000, len(problem.candidates())))
    better = problem.candidates().index(problem.make_setting(reference.allocation, 2e-3))
    for gain, expected in ((0.05, reference), (0.5, problem.candidates()[better])):
        loss_SC = 2.0 + 0.1 * draws - gain * (np.arange(len(problem.candidates())) == better)
        loss_SC[:, find_reference(problem)] -= 0.01
        assert decide_setting("mars", problem, runs, loss_SC).setting == expected


def test_at_a_given_rate_ranks_are_searched_as_by_ranks_only():
    problem = CLEAR.problem(budget=0.5)
    runs = replay(MarsStrategy(), CLEAR, problem)
    assert {run.member.id for run in runs} == {run.member.id for run in replay(RanksOnlyStrategy(), CLEAR, problem)}
    decision, expected = (each.decide(problem, runs) for each in (MarsStrategy(), RanksOnlyStrategy()))
    assert (decision.strategy, decision.chosen) == ("mars", expected.chosen)
    assert decision.learning_rate is None


def test_the_cost_is_not_dropped_at_a_given_rate():
    problem = CLEAR.problem()
    spent = [problem.spent(replay(MarsStrategy(**options), CLEAR, problem)) for options in ({}, {"cost": 0.7})]
    assert spent[0] <= 0.26 and 0.4 < spent[1] <= 0.72


def test_a_part_that_need_not_be_trained_comes_first_in_the_verdict():
    space = Space.of({"eye": (0, 4, 16), "tongue": (4, 16)})
    weight, tau = {"eye": 1.0, "tongue": 1.0}, {"eye": 100.0, "tongue": 200.0}
    toy = dataclasses.replace(CLEAR, space=space, weight=weight, tau=tau)
    _, _, decision = search(toy, 1.0)
    assert decision.summary.startswith("Train eye (probability")
    assert decision.chosen["eye"] > 0
    assert "training eye" in {effect.knob for effect in decision.effects}


DRAWS = np.random.default_rng(0).normal(size=(500, 16))


@pytest.mark.parametrize(
    ("mean_C", "sd", "verdict"),
    [
        (np.zeros(16), 0.001, "alike"),
        (np.arange(16) * 0.3, 0.01, "clear"),
        (np.arange(16) * 0.02, 0.02, "indistinguishable"),
        (np.zeros(16), 0.5, "unmeasured"),
    ],
)
def test_a_verdict_says_what_the_draws_show(mean_C, sd, verdict):
    problem = CLEAR.problem()
    runs = replay(MarsStrategy(), CLEAR, problem)  # from 3 nats before training
    decision = decide_setting("mars", problem, runs, 1.2 + mean_C + sd * DRAWS)
    assert decision.verdict == verdict
    smallest = min(map(problem.count_parameters, problem.allocations()))
    assert verdict != "alike" or problem.count_parameters(decision.chosen) == smallest
    assert verdict != "unmeasured" or "A budget of about" in decision.summary


def test_of_settings_that_cannot_be_told_apart_the_cheapest_is_taken():
    problem = CLEAR.problem()
    runs = replay(MarsStrategy(), CLEAR, problem)
    loss_SC = 1.2 + 0.3 * (np.arange(16) < 8) + 0.001 * DRAWS
    decision = decide_setting("mars", problem, runs, loss_SC)
    good = [candidate.allocation for candidate in decision.candidates[8:]]
    assert decision.chosen == min(good, key=problem.count_parameters)
    assert {setting.allocation for setting in decision.plausible} <= set(good)


def test_effects_are_what_the_worst_value_costs():
    problem = CLEAR.problem()
    runs = replay(MarsStrategy(), CLEAR, problem)
    rank_C = np.array([each.allocation["eye"] for each in problem.candidates()])
    loss_SC = 1.2 + 0.5 * (rank_C == 2) + 0.001 * DRAWS
    eye, tongue = sorted(measure_effects(problem, runs, loss_SC), key=lambda effect: effect.knob)
    assert (eye.worst, eye.verdict, tongue.verdict) == ("2", "matters", "does not matter")
    assert eye.nats.value == pytest.approx(0.5, abs=0.01) and eye.nats.low <= 0.5 <= eye.nats.high


def test_a_diverged_run_is_a_measurement_that_speaks_against_its_setting():
    problem, runs, _ = search(CLEAR, 0.5)
    worst = max(runs, key=lambda run: run.member.learning_rate)
    broken = worst.model_copy(update={"status": "diverged"})
    before, after = make_measurements(problem, [worst]), make_measurements(problem, [broken])
    assert after.log_loss_N.max() > before.log_loss_N.max()
    decision = MarsStrategy().decide(problem, [*(run for run in runs if run is not worst), broken])
    assert decision.setting != worst.member.setting


def test_training_losses_count_in_the_first_pass_alone():
    problem = CLEAR.problem(learning_rates=RATES)
    member = problem.member(problem.candidates()[0], problem.num_train, problem.full_examples, "", validations="few")
    run = CLEAR.train(member, problem.full_examples)
    measured = make_measurements(problem, [run])
    ends = np.exp(measured.log_share_N[measured.is_train_N == 1]) * problem.full_examples
    assert ends.max() < problem.num_train < run.last_examples


def test_losses_of_other_rows_or_settings_are_not_read():
    problem = CLEAR.problem(learning_rates=RATES)
    member = problem.member(problem.candidates()[0], problem.num_train, 1600, "")
    run = Run(member=member, status="complete", examples=(0, 1600), validation_loss=(3.0, 2.0))
    assert len(make_measurements(problem, [run]).setting_N) == 1
    for change in ({"data_examples": 64}, {"learning_rate": 0.123}):
        other = run.model_copy(update={"member": member.model_copy(update=change)})
        assert len(make_measurements(problem, [other]).setting_N) == 0


def test_alternatives_are_covered_before_neighbours():
    # candidates 0 and 1 are good in the same draws, 2 in the others, 3 never
    loss_SC = np.array([[0.0, 0.1, 1.0, 2.0]] * 6 + [[1.0, 1.1, 0.2, 2.0]] * 4)
    assert cover_best(loss_SC, 2) == [0, 2]
    assert cover_best(loss_SC, 2, first=[3]) == [3, 0]
    assert len(cover_best(loss_SC, 4)) == 2  # nothing is left to gain


def test_a_sweep_trains_the_chosen_and_its_neighbours():
    strategy = MarsStrategy(sweep=0.25)
    problem, runs, _ = search(CLEAR, 0.3, strategy)
    long = {run.member.setting for run in runs if run.last_examples >= 0.15 * problem.full_examples}
    near = [{problem.candidates()[c] for c in list_neighbours(problem, n)} for n in range(len(problem.candidates()))]
    assert any(group <= long for group in near)


def test_neighbours_differ_by_one_step_of_one_ladder():
    problem = CLEAR.problem(learning_rates=RATES)
    usual = problem.make_setting(next(a for a in problem.allocations() if set(a.as_dict().values()) == {4}), 1e-3)
    near = [problem.candidates()[c] for c in list_neighbours(problem, problem.candidates().index(usual))]
    assert len(near) == 7 and near[0] == usual
    assert {(s.allocation["eye"], s.allocation["tongue"], s.learning_rate) for s in near[1:]} == {
        (2, 4, 1e-3), (8, 4, 1e-3), (4, 2, 1e-3), (4, 8, 1e-3), (4, 4, 5e-4), (4, 4, 2e-3),
    }  # fmt: skip


def test_the_reference_is_best_in_the_share_of_draws_that_the_tables_say():
    rng = np.random.default_rng(0)
    loss_SC = rng.uniform(size=(4000, 8))
    mixed_SC = favour_reference(loss_SC, 3, 0.4, rng)
    p_best_C = np.bincount(mixed_SC.argmin(axis=1), minlength=8) / len(mixed_SC)
    assert mixed_SC.shape == loss_SC.shape
    assert p_best_C[3] == pytest.approx(0.4 + 0.6 / 8, abs=0.03)
    assert p_best_C[5] == pytest.approx(0.6 / 8, abs=0.03)


def test_a_reference_that_is_never_best_is_not_favoured():
    loss_SC = np.array([[1.0, 2.0], [1.5, 1.6]])
    assert (favour_reference(loss_SC, 1, 0.4, np.random.default_rng(0)) == loss_SC).all()


def test_the_untouched_model_is_worse_than_all_that_was_measured_if_nobody_measured_it():
    problem = CLEAR.problem(learning_rates=RATES)
    member = problem.member(problem.candidates()[0], problem.num_train, 1600, "")
    late = Run(member=member, status="complete", examples=(800, 1600), validation_loss=(3.0, 2.0))
    known = late.model_copy(update={"examples": (0, 800, 1600), "validation_loss": (9.0, 3.0, 2.0)})
    assert make_measurements(problem, [late]).log_start == pytest.approx(np.log(3.0) + UNKNOWN_START)
    assert make_measurements(problem, [known]).log_start == pytest.approx(np.log(9.0))


def test_of_more_losses_than_the_law_is_given_the_last_of_every_run_count():
    problem = CLEAR.problem(learning_rates=RATES)
    examples = tuple(range(800, 800 + MOST_POINTS))
    runs = [
        Run(
            member=problem.member(setting, problem.num_train, examples[-1], ""), status="complete",
            examples=examples, validation_loss=(2.0,) * len(examples),
        )
        for setting in problem.candidates()[:3]
    ]  # fmt: skip
    measured = make_measurements(problem, runs)
    assert np.bincount(measured.setting_N).tolist() == [MOST_POINTS // 3] * 3
    assert np.exp(measured.log_share_N.max()) * problem.full_examples == pytest.approx(examples[-1])
