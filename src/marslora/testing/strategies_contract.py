"""What every strategy promises, on simulated training.

Subclass the class in a test file of your own and return your plugin from the fixture `strategy`; pytest runs the rest.
"""

import dataclasses
import math

import pytest

from marslora.core.allocation import Space
from marslora.core.decision import DecisionRecord
from marslora.core.errors import ConfigError
from marslora.core.spec import TrainingSpec
from marslora.testing.toy_training import CLEAR, NULL, TRIO, replay

RATES = (1.5e-4, 3e-4, 5e-4, 1e-3, 1.5e-3, 3e-3)
WORLDS = {"clear": CLEAR, "null": NULL, "trio": TRIO}


class StrategyContract:
    """What every strategy promises, on simulated training."""

    @pytest.fixture
    def strategy(self):
        """Return an instance of the strategy to check."""
        raise NotImplementedError("Define the fixture `strategy` in a subclass.")

    @pytest.mark.parametrize("name", WORLDS)
    def test_a_search_ends_with_a_reason_for_every_candidate(self, strategy, name):
        toy = WORLDS[name]
        problem = toy.problem()
        runs = replay(strategy, toy, problem)
        decision = strategy.decide(problem, runs)
        assert [c.setting for c in decision.candidates] == list(problem.candidates())
        assert all(len(c.reason) > 10 for c in decision.candidates)
        assert [c.setting for c in decision.candidates if c.status == "chosen"] == [decision.setting]
        assert all(c.num_trainable == problem.count_parameters(c.allocation) for c in decision.candidates)
        assert decision.summary and str(decision.chosen) in decision.summary
        assert decision.assumptions and decision.next_steps is not None
        probabilities = [c.p_best for c in decision.candidates if c.p_best is not None]
        assert not probabilities or math.isclose(sum(probabilities), 1.0)
        assert decision.calibration_full_runs == pytest.approx(problem.spent(runs))
        if runs:
            assert decision.setting in decision.plausible
            assert decision.calibration.examples == sum(run.last_examples for run in runs)
        if decision.continue_run is not None:
            (continued,) = [run for run in runs if run.member.id == decision.continue_run]
            assert continued.member.setting == decision.setting
            assert continued.member.data_examples == problem.num_train
        assert DecisionRecord.model_validate_json(decision.to_json()) == decision or "NaN" in decision.to_json()

    def test_learning_rates_are_part_of_the_decision(self, strategy):
        toy = dataclasses.replace(CLEAR, num_validation=64)
        factors = (("eye", (0.5, 1.0)),)
        problem = toy.problem(learning_rates=(3e-4, 1e-3, 3e-3), part_rate_factors=factors, full_validations=20)
        runs = replay(strategy, toy, problem)
        decision = strategy.decide(problem, runs)
        assert {candidate.setting for candidate in decision.candidates} <= set(problem.candidates())
        assert [c.setting for c in decision.candidates if c.status == "chosen"] == [decision.setting]
        assert all(run.member.rate_of("eye", TrainingSpec()) in RATES for run in runs)
        assert decision.calibration_full_runs == pytest.approx(problem.spent(runs))
        if decision.continue_run is not None:
            (continued,) = [run for run in runs if run.member.id == decision.continue_run]
            assert continued.member.setting == decision.setting

    def test_members_have_unique_ids_and_whole_batches(self, strategy):
        problem = CLEAR.problem()
        for member in strategy.propose(problem, []):
            assert member.until_examples % problem.batch_size == 0 or member.until_examples == problem.full_examples
            assert 0 < member.data_examples <= problem.num_train
            assert set(member.allocation.parts) == set(problem.space.parts)
        ids = [member.id for member in strategy.propose(problem, [])]
        assert len(ids) == len(set(ids))

    def test_proposals_and_decisions_are_functions_of_the_runs(self, strategy):
        problem = CLEAR.problem()
        runs = replay(strategy, CLEAR, problem)
        again = type(strategy)()
        for seen in (runs[: len(runs) // 2], runs):
            assert list(again.propose(problem, seen)) == list(strategy.propose(problem, list(reversed(seen))))
            assert again.decide(problem, seen) == strategy.decide(problem, list(reversed(seen)))

    def test_a_round_that_broke_off_is_taken_up_where_it_stood(self, strategy):
        problem = CLEAR.problem()
        proposed = list(strategy.propose(problem, []))
        if len(proposed) == 1:
            pytest.skip("one allocation after the other: a round cannot break off between members")
        half = [CLEAR.train(member, problem.full_examples) for member in proposed[::2]]
        assert [member.id for member in strategy.propose(problem, half)] == [member.id for member in proposed[1::2]]

    def test_a_run_cut_short_is_asked_for_again(self, strategy):
        problem = CLEAR.problem()
        proposed = list(strategy.propose(problem, []))
        if not proposed:
            return
        first = proposed[0]
        short = CLEAR.train(
            first.model_copy(update={"until_examples": first.until_examples // 2}), problem.full_examples
        )
        assert first in strategy.propose(problem, [short.model_copy(update={"member": first, "status": "running"})])

    @pytest.mark.parametrize("broken", ["all", "every other", "one part", "diverged"])
    def test_runs_that_failed_lead_to_a_decision_and_a_stated_fallback(self, strategy, broken):
        rules = {
            "all": lambda member: True,
            "every other": lambda member: sum(map(ord, member.id)) % 2 == 0,
            "one part": lambda member: member.allocation.active == ("eye",),
            "diverged": lambda member: False,
        }
        toy = dataclasses.replace(CLEAR, broken=rules[broken])
        problem = toy.problem()
        runs = replay(strategy, toy, problem)
        if broken == "diverged":
            runs = [run.model_copy(update={"status": "diverged"}) for run in runs]
        decision = strategy.decide(problem, runs)
        assert decision.setting in problem.candidates()
        if broken in ("all", "diverged"):
            assert decision.verdict == "fallback" and decision.fallback
        assert all(c.reason for c in decision.candidates)

    def test_nothing_measured_is_a_fallback(self, strategy):
        problem = TRIO.problem()
        decision = strategy.decide(problem, [])
        assert decision.verdict == "fallback" and decision.fallback
        assert decision.setting in problem.candidates()

    def test_constraints_hold(self, strategy):
        problem = CLEAR.problem(max_parameters=1300)
        runs = replay(strategy, CLEAR, problem)
        decision = strategy.decide(problem, runs)
        assert problem.count_parameters(decision.chosen) <= 1300
        assert len(decision.candidates) < 16

    def test_one_candidate_needs_no_search(self, strategy):
        toy = dataclasses.replace(CLEAR, space=type(CLEAR.space).of({"eye": (8,), "tongue": (4,)}))
        problem = toy.problem()
        decision = strategy.decide(problem, replay(strategy, toy, problem))
        assert decision.chosen.as_dict() == {"eye": 8, "tongue": 4}

    def test_the_only_allocation_is_taken_without_laws(self, strategy):
        problem = CLEAR.problem()
        problem = dataclasses.replace(problem, space=Space.of(dict.fromkeys(problem.space.parts, (8,))))
        decision = strategy.decide(problem, [])
        assert decision.setting == problem.candidates()[0]
        assert not decision.laws and decision.verdict == "fallback"

    def test_options_of_a_wrong_type_are_refused(self, strategy):
        kind = type(strategy)
        for field in dataclasses.fields(kind.Config):
            assert kind(**{field.name: field.default}).config == strategy.config
            for wrong in ({}, "many" if not isinstance(field.default, str) else 3, object()):
                with pytest.raises(ConfigError, match=f"`{field.name}` of {kind.__name__} must be .*, found"):
                    kind(**{field.name: wrong})

    def test_unknown_options_are_named(self, strategy):
        with pytest.raises(ConfigError, match="no option"):
            type(strategy)(nonsense=1)
