"""The search by the joint law on simulated training."""

import dataclasses

import pytest

from marslora.core.allocation import Allocation, Space
from marslora.strategies._calibration import list_neighbours
from marslora.strategies.ranks_only import RanksOnlyStrategy
from marslora.testing.toy_training import CLEAR, NULL, TRIO, replay

QUICK = RanksOnlyStrategy(fit_laws=False)


def search(toy, budget, strategy=QUICK):
    problem = toy.problem(budget=budget)
    runs = replay(strategy, toy, problem)
    return problem, runs, strategy.decide(problem, runs)


@pytest.mark.parametrize("toy", [CLEAR, TRIO], ids=["pair", "trio"])
def test_the_best_is_found_at_a_fraction_of_a_run(toy):
    regrets = []
    for seed in range(3):
        own = dataclasses.replace(toy, seed=seed)
        problem, _, decision = search(own, 0.5)
        regrets.append(own.regret(problem, decision.setting))
    spread = max(toy.final(problem).values()) - min(toy.final(problem).values())
    assert sum(regrets) / 3 < 0.1 * spread


@pytest.mark.parametrize("budget", [0.3, 0.5, 1.0])
def test_the_budget_is_kept(budget):
    problem, runs, _ = search(CLEAR, budget)
    assert problem.spent(runs) <= budget * 1.05


@pytest.mark.parametrize("tau", [300.0, 1.0], ids=["still falling", "at its floor"])
def test_where_rank_does_not_matter_it_says_so(tau):
    problem, _, decision = search(dataclasses.replace(NULL, tau={"eye": tau, "tongue": tau}), 0.6)
    assert decision.verdict == "indistinguishable"
    assert decision.summary.startswith("Rank does not matter here")
    assert len(decision.plausible) > 0.6 * len(problem.candidates())
    costs = sorted(map(problem.count_parameters, problem.allocations()))
    assert problem.count_parameters(decision.chosen) <= costs[len(costs) // 3]


def test_parts_are_measured_alone_only_where_the_budget_is_large():
    for budget, expected in ((0.5, False), (1.0, True)):
        _, runs, _ = search(CLEAR, budget)
        assert any(len(run.member.allocation.active) == 1 for run in runs) is expected


def test_parts_are_not_measured_alone_in_a_few_steps():
    problem = CLEAR.problem(budget=1.0, full_examples=1200)
    runs = replay(QUICK, CLEAR, problem)
    assert all(len(run.member.allocation.active) == 2 for run in runs)
    assert not QUICK.decide(problem, runs).fallback


def test_a_look_too_short_is_not_taken_for_ranks_that_do_not_matter():
    problem = CLEAR.problem(budget=0.02)
    decision = QUICK.decide(problem, replay(QUICK, CLEAR, problem))
    assert decision.verdict == "indistinguishable"
    assert decision.summary.startswith("Too little was measured")


def test_a_clear_choice_is_called_clear():
    _, _, decision = search(CLEAR, 1.0)
    assert decision.verdict == "clear" and decision.chosen == Allocation.of({"eye": 16, "tongue": 16})


def test_laws_are_reported_beside_the_choice():
    _, _, decision = search(CLEAR, 1.0, RanksOnlyStrategy())
    assert {law.law for law in decision.laws} == {"convergence", "performance"}
    assert {law.subject for law in decision.laws if law.law == "convergence"} == {"eye", "tongue"}
    quick = QUICK.decide(CLEAR.problem(budget=1.0), search(CLEAR, 1.0)[1])
    assert quick.chosen == decision.chosen


def test_runs_that_overfit_are_judged_by_their_best_point():
    toy = dataclasses.replace(CLEAR, overfit=0.3)
    problem = dataclasses.replace(toy.problem(budget=1.0), num_train=1000)
    decision = QUICK.decide(problem, replay(QUICK, toy, problem))
    times = range(100, problem.full_examples, 100)
    best = {a: min(toy.loss(a, t, 1000) for t in times) for a in problem.allocations()}
    last = {a: toy.loss(a, problem.full_examples, 1000) for a in problem.allocations()}
    assert min(last, key=last.__getitem__) != min(best, key=best.__getitem__)
    spread = max(best.values()) - min(best.values())
    assert best[decision.chosen] < min(best.values()) + 0.15 * spread


def test_a_sweep_trains_the_chosen_and_its_neighbours():
    strategy = RanksOnlyStrategy(fit_laws=False, sweep=0.3)
    problem, runs, decision = search(TRIO, 0.3, strategy)
    examples = {run.member.allocation: run.last_examples for run in runs}
    near = list_neighbours(problem, decision.chosen)
    assert decision.chosen in near and len(near) > 3
    assert all(examples[allocation] >= problem.examples(0.3) for allocation in near)
    assert not strategy.propose(problem, runs)


def test_neighbours_are_one_step_away_and_candidates():
    problem = CLEAR.problem(max_parameters=2000)
    near = list_neighbours(problem, Allocation.of({"eye": 4, "tongue": 16}))
    assert [each.as_dict() for each in near[1:]] == [{"eye": 2, "tongue": 16}, {"eye": 4, "tongue": 8}]


def test_two_allocations_are_enough_for_a_law():
    toy = dataclasses.replace(CLEAR, space=Space.of({"eye": (2, 16), "tongue": (8,)}))
    _, _, decision = search(toy, 0.5)
    assert decision.verdict != "fallback" and decision.chosen["eye"] == 16
