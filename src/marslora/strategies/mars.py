"""MARS with a joint law: begin many allocations, fit cells and time at once, go on where it can change the choice.

Rounds: where the budget pays for them, arms that adapt one part alone (Law-C, and whether balance predicts loss here);
then short runs of allocations spread over the space; then, round after round, the likeliest to be best go on. It ends
early when the choice is clear or nothing is left to gain. The final run continues the winner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marslora.core.allocation import Allocation
from marslora.core.decision import DecisionRecord
from marslora.core.runs import Run
from marslora.core.spec import MemberSpec
from marslora.strategies._analysis import joint_runs, study
from marslora.strategies._base import LEAST_STEPS, AbstractStrategy, Problem, as_of, unfinished
from marslora.strategies._calibration import arms, joint, neighbours, plan, spread_out
from marslora.strategies._choice import Choice, choose
from marslora.strategies._decision import decision
from marslora.strategies._joint_predictions import predict_jointly


class MarsStrategy(AbstractStrategy):
    """A joint law of allocations and time says what to measure next, what to pick, and how sure that is."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractStrategy.Config):
        """How much is measured, and what counts as equal."""

        cost: float = 0.25
        """Run equivalents of calibration where the problem has no budget. More found nothing better."""
        arms_from: float = 0.8
        """Budget from which each part is also measured alone; below it all goes into allocations."""
        arm_steps: int = 8
        """Nor is it where the budget gives such a run fewer optimizer steps: they would not leave the warm-up."""
        data_shares: tuple[float, ...] = (1 / 32, 1 / 8)
        """Data sizes of these arms, as shares of the training rows."""
        most_begun: int = 24
        """Allocations of the first round."""
        first_share: float = 0.5
        """Of the budget for allocations, what the first round takes; the later rounds share the rest."""
        num_leaders: tuple[int, ...] = (4, 2)
        """Allocations that go on in each later round."""
        sure: float = 0.95
        """Ends when the chosen allocation is best with so much probability."""
        tolerance: float = 1.25
        """Ratio of convergence times that counts as balanced."""
        indifference: float = 0.001
        """Relative loss that a cheaper allocation may cost in expectation where it cannot be told from the best."""
        sweep: float = 0.0
        """Share of a full run that the chosen allocation and its neighbours (one rank up or down in one part) are
        trained at last, beyond the budget, and again around what is chosen then; 0: no such sweep."""
        fit_laws: bool = True
        """Fit Law-C and Law-P beside the joint law; without them a decision takes a moment."""

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The unfinished members of the first unfinished round."""
        if len(problem.candidates()) == 1:
            return ()
        budget = self.config.cost if problem.budget is None else problem.budget
        if first := self._arms(problem, budget):
            if todo := unfinished(first, runs):
                return todo
            budget -= problem.spent(as_of(first, runs))
        wanted = self._first(problem, budget * self.config.first_share)
        if todo := unfinished(wanted, runs):
            return todo
        return self._later(problem, runs, wanted, budget) or self._around(problem, runs)

    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:
        """The choice by the joint law, with Law-C and Law-P beside it."""
        ordered = tuple(sorted(runs, key=lambda run: run.member.id))
        outlook = predict_jointly(problem, tuple(joint_runs(problem, ordered)))
        found = study(
            problem,
            ordered,
            self.config.tolerance,
            self.config.indifference,
            outlook,
            fit_laws=self.config.fit_laws or outlook is None,
        )
        return decision("mars", problem, runs, found)

    def _arms(self, problem: Problem, budget: float) -> list[MemberSpec]:
        lengths = plan(problem, self.config.cost, 8, 3)
        pays = budget >= self.config.arms_from and lengths.arm_short >= self.config.arm_steps * problem.batch_size
        return arms(problem, self.config.data_shares, lengths) if pays else []

    def _first(self, problem: Problem, budget: float) -> list[MemberSpec]:
        """Allocations spread over the space, as many as can be given a few steps each."""
        candidates = problem.candidates()
        least = LEAST_STEPS * problem.batch_size / problem.full_examples
        most = min(self.config.most_begun, len(candidates))
        fewest = min(2 * len(problem.space.searched) + 1, most)
        num = int(np.clip(budget / least, fewest, most))
        largest = max(range(len(candidates)), key=lambda c: problem.count_parameters(candidates[c]))
        chosen = [largest, *spread_out(candidates, [largest], range(len(candidates)), num - 1)]
        return joint(problem, [candidates[c] for c in chosen], problem.examples(budget / num))

    def _later(
        self, problem: Problem, runs: Sequence[Run], wanted: list[MemberSpec], budget: float
    ) -> Sequence[MemberSpec]:
        """The leaders of the first later round that is not finished; empty when the choice is clear."""
        seen = as_of(wanted, runs)
        each = (budget - problem.spent(seen)) / len(self.config.num_leaders)
        if each <= 0:
            return ()
        for num in self.config.num_leaders:
            choice = self._choice(problem, seen)
            if choice is None or self._is_settled(choice):
                return ()
            leaders = self._leaders(problem, choice, num)
            until = self._length(problem, seen, leaders, each)
            going_on = joint(problem, leaders, until)
            if todo := unfinished(going_on, runs):
                return todo
            ids = {member.id for member in going_on}
            seen = [run for run in seen if run.member.id not in ids] + as_of(going_on, runs)
        return ()

    def _around(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The sweep around what is chosen now."""
        choice = self._choice(problem, runs) if self.config.sweep else None
        if choice is None:
            return ()
        near = neighbours(problem, problem.candidates()[choice.chosen])
        return unfinished(joint(problem, near, problem.examples(self.config.sweep)), runs)

    def _choice(self, problem: Problem, seen: Sequence[Run]) -> Choice | None:
        ordered = tuple(sorted(joint_runs(problem, seen), key=lambda run: run.member.id))
        outlook = predict_jointly(problem, ordered)
        if outlook is None:
            return None
        cost_C = [problem.count_parameters(allocation) for allocation in problem.candidates()]
        nats = self.config.indifference * float(outlook.loss_C.min())
        return choose(outlook.loss_SC, np.ones(len(cost_C), dtype=bool), cost_C, outlook.noise, nats)

    def _is_settled(self, choice: Choice) -> bool:
        return bool(choice.p_best_C[choice.chosen] >= self.config.sure)

    def _leaders(self, problem: Problem, choice: Choice, num: int) -> list[Allocation]:
        """The chosen and the likeliest to be best."""
        likely = np.argsort(-choice.p_best_C, kind="stable").tolist()
        ranked = [choice.best, choice.chosen, *(c for c in likely if choice.p_best_C[c] > 0)]
        return [problem.candidates()[c] for c in dict.fromkeys(ranked)][:num]

    def _length(self, problem: Problem, seen: Sequence[Run], leaders: Sequence[Allocation], budget: float) -> int:
        """The common length to which a budget brings the leaders."""
        got = {run.member.allocation: run.last_examples / problem.full_examples for run in joint_runs(problem, seen)}
        had = sorted(got.get(allocation, 0.0) for allocation in leaders)
        longest = max(had)
        length = longest
        for count in range(len(had), 0, -1):  # water fills the shortest first
            length = (budget + sum(had[:count])) / count
            if length >= had[count - 1]:
                break
        return problem.examples(max(length, longest))
