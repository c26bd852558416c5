"""The search by the joint law on simulated training."""

import dataclasses

import pytest
from tests.unit.strategies.world import CLEAR, NULL, TRIO, replay

from marslora.strategies.mars import MarsStrategy

QUICK = MarsStrategy.of({"fit_laws": False})


def search(world, budget, strategy=QUICK):
    problem = world.problem(budget=budget)
    runs = replay(strategy, world, problem)
    return problem, runs, strategy.decide(problem, runs)


@pytest.mark.parametrize("world", [CLEAR, TRIO], ids=["pair", "trio"])
def test_the_best_is_found_at_a_fraction_of_a_run(world):
    regrets = []
    for seed in range(3):
        own = dataclasses.replace(world, seed=seed)
        problem, _, decision = search(own, 0.5)
        regrets.append(own.regret(problem, decision.chosen))
    spread = max(world.final(problem).values()) - min(world.final(problem).values())
    assert sum(regrets) / 3 < 0.1 * spread


@pytest.mark.parametrize("budget", [0.3, 0.5, 1.0])
def test_the_budget_is_kept(budget):
    problem, runs, _ = search(CLEAR, budget)
    assert problem.spent(runs) <= budget * 1.05


def test_where_rank_does_not_matter_it_says_so():
    problem, _, decision = search(NULL, 0.4)
    assert decision.verdict == "indistinguishable"
    assert len(decision.plausible) > 0.6 * len(problem.candidates())
    costs = sorted(map(problem.count_parameters, problem.candidates()))
    assert problem.count_parameters(decision.chosen) <= costs[len(costs) // 3]


def test_parts_are_measured_alone_only_where_the_budget_is_large():
    for budget, expected in ((0.5, False), (1.0, True)):
        _, runs, _ = search(CLEAR, budget)
        assert any(len(run.member.allocation.active) == 1 for run in runs) is expected


def test_laws_are_reported_beside_the_choice():
    _, _, decision = search(CLEAR, 1.0, MarsStrategy())
    assert {law.law for law in decision.laws} == {"convergence", "performance"}
    assert {law.subject for law in decision.laws if law.law == "convergence"} == {"eye", "tongue"}
    quick = QUICK.decide(CLEAR.problem(budget=1.0), search(CLEAR, 1.0)[1])
    assert quick.chosen == decision.chosen


def test_with_many_passes_the_fastest_is_followed():
    world = dataclasses.replace(CLEAR, overfit=0.05)
    problem = dataclasses.replace(world.problem(budget=0.6), num_train=1000)
    runs = replay(QUICK, world, problem)
    furthest = max(runs, key=lambda run: run.last_examples)
    assert sum(run.last_examples == furthest.last_examples for run in runs) == 1
    at_first = min(run.last_examples for run in runs)
    assert furthest.last_examples > 3 * at_first
