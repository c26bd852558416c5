import dataclasses
from functools import lru_cache

import numpy as np
import pytest
from tests.helpers.cached_fits import cached_fits  # noqa: F401

from marslora.core.allocation import Allocation, Space
from marslora.core.setting import Setting
from marslora.strategies import cut_runs
from marslora.strategies.mars_paper import MarsPaperStrategy
from marslora.strategies.uniform import UniformStrategy
from marslora.testing.toy_training import CLEAR, NULL, PAIR, ToyTraining, replay


@lru_cache
def clear_search():
    return search(CLEAR)


def search(toy, **more):
    problem, strategy = toy.problem(**more), MarsPaperStrategy()
    runs = replay(strategy, toy, problem)
    return problem, runs, strategy.decide(problem, runs)


def test_calibration_keeps_to_its_budget():
    for budget, (problem, runs, _) in ((0.9, clear_search()), (0.5, search(CLEAR, budget=0.5))):
        assert problem.spent(runs) == pytest.approx(budget, rel=0.2)


def test_part_runs_train_one_part_at_every_rank_and_two_data_sizes():
    _, runs, _ = clear_search()
    for part in PAIR.parts:
        part_runs = [run.member for run in runs if run.member.allocation.active == (part,)]
        assert {run.allocation[part] for run in part_runs} == set(PAIR.ladder(part))
        assert len({run.data_examples for run in part_runs}) == 2
        assert all(run.purpose == f"convergence of {part}" for run in part_runs)


def test_candidate_runs_are_balanced_ones_and_controls_on_all_rows():
    problem, runs, decision = clear_search()
    candidate_runs = [run.member for run in runs if len(run.member.allocation.active) == 2]
    assert 8 <= len({member.allocation for member in candidate_runs}) <= 11
    assert {member.data_examples for member in candidate_runs} == {problem.num_train}
    assert decision.continue_run in {member.id for member in candidate_runs}


def test_extension_does_not_change_what_was_asked_before():
    toy, strategy = CLEAR, MarsPaperStrategy()
    problem = toy.problem()
    runs = {}
    rounds = []
    while proposed := strategy.propose(problem, list(runs.values())):
        rounds.append([member.id for member in proposed])
        runs |= {member.id: toy.train(member, problem.full_examples) for member in proposed}
    assert len(rounds) == 3
    lengths = {member.id: member.until_examples for member in strategy.propose(problem, [])}
    assert all(len(ids) == len(set(ids)) for ids in rounds)
    assert set(lengths) == set(rounds[0])


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_a_clear_problem_is_solved_with_small_regret(seed):
    toy = dataclasses.replace(CLEAR, seed=seed)
    problem, _, decision = search(toy)
    final = toy.final(problem)
    spread = max(final.values()) - min(final.values())
    assert toy.regret(problem, decision.setting) < 0.12 * spread
    best = min(final, key=final.get)
    assert best in decision.plausible or toy.regret(problem, decision.setting) < 0.02 * spread
    assert decision.chosen_candidate.p_best > 0.2


@pytest.mark.parametrize("num", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_ranks_that_do_not_matter_are_called_indistinguishable_and_the_cheapest_is_taken(num):
    indistinguishable, cheap = 0, 0
    for seed in range(num):
        problem, _, decision = search(dataclasses.replace(NULL, seed=seed))
        indistinguishable += decision.verdict == "indistinguishable"
        order = sorted(problem.allocations(), key=problem.count_parameters)
        cheap += decision.chosen in order[:3]
    assert indistinguishable >= 0.9 * num
    assert cheap >= 0.7 * num


def test_convergence_laws_order_the_parts_as_they_are():
    _, _, decision = search(dataclasses.replace(CLEAR, noise=0.001, seed_noise=0.001))
    laws = {law.subject: law for law in decision.laws}
    assert set(laws) == {"eye", "tongue", "allocation"}
    slow = decision.candidate(Setting(allocation=Allocation.of(eye=2, tongue=16)))
    assert slow.convergence_examples["eye"].value > slow.convergence_examples["tongue"].value
    assert "eye would converge" in slow.reason and "interval" in slow.reason
    assert (
        slow.imbalance.value > decision.candidate(Setting(allocation=Allocation.of(eye=16, tongue=2))).imbalance.value
    )


def test_closed_forms_are_given_for_each_ordered_pair_and_rank():
    _, _, decision = clear_search()
    pairs = {(form.part, form.given, form.given_rank) for form in decision.closed_forms}
    assert len(pairs) == 8
    assert all(form.status == "solved" or form.message for form in decision.closed_forms)


def test_without_a_law_of_convergence_nothing_is_dropped_and_that_is_said():
    toy = dataclasses.replace(CLEAR, broken=lambda member: member.allocation.active == ("eye",))
    _, _, decision = search(toy)
    assert "no convergence law for eye" in decision.fallback
    assert all(candidate.status != "dropped" for candidate in decision.candidates)
    assert decision.verdict != "fallback"


def test_without_a_law_of_performance_the_lowest_loss_is_taken():
    toy = dataclasses.replace(
        CLEAR, broken=lambda m: len(m.allocation.active) == 2 and m.allocation["eye"] + m.allocation["tongue"] > 6
    )
    problem, runs, _ = search(dataclasses.replace(toy))
    alive = [run for run in runs if run.status == "complete" and len(run.member.allocation.active) == 2][:2]
    part_runs = [run for run in runs if len(run.member.allocation.active) == 1]
    decision = MarsPaperStrategy().decide(problem, [*part_runs, *alive])
    assert decision.verdict == "fallback"
    assert "no performance law" in decision.fallback or "no candidate run" in decision.fallback


def test_one_searched_part_needs_no_balance():
    toy = ToyTraining(
        Space.of({"eye": (2, 4, 8, 16), "bridge": (8,)}),
        {"eye": 1.0, "bridge": 0.3},
        {"eye": 1.0, "bridge": 0.5},
        {"eye": 400.0, "bridge": 200.0},
    )
    problem, runs, decision = search(toy)
    assert all(len(run.member.allocation.active) == 2 for run in runs)
    assert toy.regret(problem, decision.setting) < 0.05


def test_cut_runs_drops_what_was_measured_later():
    problem = CLEAR.problem()
    setting = Setting(allocation=Allocation.of(eye=8, tongue=8))
    short = problem.member(setting, problem.num_train, 480, "candidate run", validations="regular")
    long = CLEAR.train(short.model_copy(update={"until_examples": 4800}), problem.full_examples)
    (cut,) = cut_runs([short], [long])
    assert cut.last_examples <= 480 < long.last_examples
    assert cut.validation_loss == long.validation_loss[: len(cut.validation_loss)]


@pytest.mark.slow
def test_regret_is_below_that_of_one_rank_for_all_in_random_worlds():
    rng = np.random.default_rng(0)
    lost = {"mars": [], "uniform": []}
    for seed in range(12):
        toy = ToyTraining(
            PAIR,
            {"eye": rng.uniform(0.3, 1.0), "tongue": rng.uniform(0.3, 1.0)},
            {"eye": rng.uniform(-0.3, 1.0), "tongue": rng.uniform(-0.3, 1.0)},
            {"eye": rng.uniform(150, 900), "tongue": rng.uniform(150, 900)},
            seed=seed,
        )
        problem = toy.problem()
        for name, strategy in (("mars", MarsPaperStrategy()), ("uniform", UniformStrategy())):
            decision = strategy.decide(problem, replay(strategy, toy, problem))
            lost[name].append(toy.regret(problem, decision.setting))
    assert np.mean(lost["mars"]) < 0.5 * np.mean(lost["uniform"])
