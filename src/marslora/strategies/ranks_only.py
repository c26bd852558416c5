"""Ranks alone, at one learning rate: begin many allocations, fit a joint law, continue those that may be best.

This is what `mars` did before it also chose the learning rate; it stays for comparison.

A strategy is a pure function of the problem and the runs, with no state of its own: `propose` re-enacts the whole
search at each call. It plans the first round; if one of its members is unfinished, that is the proposal. Otherwise it
cuts the runs to what was known after that round, plans the next round from these, and so on. So resuming after a crash
is running again, a failed run changes nothing but what follows from it, and the same runs always lead to the same
search. Rounds:

1. *Part runs*, if the budget pays for them: each part alone, for Law-C and for whether balance predicts loss here.
2. *First candidates*: short runs of allocations spread over the space.
3. *Leaders*, several rounds: those that are likeliest to be best by the joint law go on, until the choice is clear.
4. *Sweep*, on request: the chosen allocation and its neighbours.

The final run continues the chosen candidate's run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from marslora.core.allocation import Allocation
from marslora.core.decision import DecisionRecord
from marslora.core.runs import Run
from marslora.core.spec import MemberSpec
from marslora.strategies._analysis import analyse_runs
from marslora.strategies._calibration import (
    list_neighbours,
    pick_distant,
    plan_calibration,
    plan_candidate_runs,
    plan_part_runs,
    select_candidate_runs,
)
from marslora.strategies._choice import Choice, choose_candidate
from marslora.strategies._decision import write_decision
from marslora.strategies._joint_predictions import predict_by_joint_law
from marslora.strategies._problem import MIN_STEPS, Problem
from marslora.strategies._runs import cut_runs, select_unfinished
from marslora.strategies._strategy import AbstractStrategy, Count, Positive, Share

NUM_CANDIDATES, NUM_EXTENDED = 8, 3
"""Candidate runs, and how many of them go on, in the plan that sets the length of part runs: those of `mars_paper`."""
CANDIDATES_PER_PART = 2
"""The first round has at least this many allocations for each searched part, and one more: a line through each rank."""


class RanksOnlyStrategy(AbstractStrategy):
    """A joint law of allocations and time says what to measure next, what to choose, and how sure that is."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractStrategy.Config):
        """How much is measured, and what counts as equal."""

        cost: Positive = 0.25
        """Full runs of calibration if the problem has no budget. More gained nothing on the tables of benchmarks."""
        part_runs_from: Positive = 0.8
        """Budget in full runs from which each part is also measured alone; below it all goes into candidates."""
        part_run_steps: Count = 8
        """Parts are not measured alone if a part run got fewer optimizer steps: it would not leave the warm-up."""
        data_shares: tuple[Share, ...] = (1 / 32, 1 / 8)
        """Data sizes of part runs, as shares of the training rows."""
        max_first: Count = 24
        """Most allocations of the first round."""
        first_share: Share = 0.5
        """Share of the budget for candidates that the first round takes; the later rounds share the rest."""
        num_leaders: tuple[Count, ...] = (4, 2)
        """Allocations that go on in each later round."""
        confidence: Share = 0.95
        """The search ends when the chosen allocation is best with this probability."""
        tolerance: Annotated[float, Field(ge=1)] = 1.25
        """Ratio of convergence times that counts as balanced."""
        indifference: Annotated[float, Field(ge=0)] = 0.001
        """Relative loss that a cheaper allocation may cost in expectation if it cannot be told from the best."""
        sweep: Annotated[float, Field(ge=0, le=1)] = 0.0
        """Share of a full run for which the chosen allocation and its neighbours (one rank up or down in one part) are
        trained at last, beyond the budget, and again around what is chosen then; 0: no sweep."""
        fit_laws: bool = True
        """Also fit Law-C and Law-P, for the report; without them a decision takes a moment."""

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The unfinished members of the first unfinished round."""
        if len(problem.allocations()) == 1:
            return ()
        budget = self.config.cost if problem.budget is None else problem.budget
        if part_runs := self._plan_part_runs(problem, budget):
            if todo := select_unfinished(part_runs, runs):
                return todo
            budget -= problem.spent(cut_runs(part_runs, runs))
        first = self._plan_first_candidates(problem, budget * self.config.first_share)
        if todo := select_unfinished(first, runs):
            return todo
        return self._propose_leaders(problem, runs, first, budget) or self._propose_sweep(problem, runs)

    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:
        """The choice by the joint law, together with Law-C and Law-P."""
        ordered = tuple(sorted(runs, key=lambda run: run.member.id))
        predictions = predict_by_joint_law(problem, tuple(select_candidate_runs(problem, ordered)))
        analysis = analyse_runs(
            problem,
            ordered,
            self.config.tolerance,
            self.config.indifference,
            predictions,
            fit_laws=self.config.fit_laws or predictions is None,
        )
        return write_decision("ranks_only", problem, runs, analysis)

    def _plan_part_runs(self, problem: Problem, budget: float) -> list[MemberSpec]:
        """Round 1; empty if the budget does not pay for it."""
        lengths = plan_calibration(problem, self.config.cost, NUM_CANDIDATES, NUM_EXTENDED)
        is_long_enough = lengths.part_short >= self.config.part_run_steps * problem.batch_size
        if budget < self.config.part_runs_from or not is_long_enough:
            return []
        return plan_part_runs(problem, self.config.data_shares, lengths)

    def _plan_first_candidates(self, problem: Problem, budget: float) -> list[MemberSpec]:
        """Round 2: allocations spread over the space, as many as can be given a few steps each."""
        candidates = problem.allocations()
        least = MIN_STEPS * problem.batch_size / problem.full_examples
        most = min(self.config.max_first, len(candidates))
        fewest = min(CANDIDATES_PER_PART * len(problem.space.searched) + 1, most)
        num = int(np.clip(budget / least, fewest, most))
        largest = max(range(len(candidates)), key=lambda c: problem.count_parameters(candidates[c]))
        picked = [largest, *pick_distant(candidates, [largest], range(len(candidates)), num - 1)]
        return plan_candidate_runs(problem, [candidates[c] for c in picked], problem.examples(budget / num))

    def _propose_leaders(
        self, problem: Problem, runs: Sequence[Run], first: list[MemberSpec], budget: float
    ) -> Sequence[MemberSpec]:
        """Round 3: the leaders of the first of its rounds that is unfinished; empty when the choice is clear."""
        seen = cut_runs(first, runs)
        budget_each = (budget - problem.spent(seen)) / len(self.config.num_leaders)
        if budget_each <= 0:
            return ()
        for num in self.config.num_leaders:
            choice = self._choose(problem, seen)
            if choice is None or self._is_settled(choice):
                return ()
            leaders = self._select_leaders(problem, choice, num)
            until = self._find_common_length(problem, seen, leaders, budget_each)
            continued = plan_candidate_runs(problem, leaders, until)
            if todo := select_unfinished(continued, runs):
                return todo
            ids = {member.id for member in continued}
            seen = [run for run in seen if run.member.id not in ids] + cut_runs(continued, runs)
        return ()

    def _propose_sweep(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """Round 4: the allocation that is chosen now and its neighbours; empty without a sweep."""
        choice = self._choose(problem, runs) if self.config.sweep else None
        if choice is None:
            return ()
        near = list_neighbours(problem, problem.allocations()[choice.chosen])
        return select_unfinished(plan_candidate_runs(problem, near, problem.examples(self.config.sweep)), runs)

    def _choose(self, problem: Problem, seen: Sequence[Run]) -> Choice | None:
        """The choice by the joint law of these runs; None if too little was measured."""
        ordered = tuple(sorted(select_candidate_runs(problem, seen), key=lambda run: run.member.id))
        predictions = predict_by_joint_law(problem, ordered)
        if predictions is None:
            return None
        cost_C = [problem.count_parameters(allocation) for allocation in problem.allocations()]
        nats = self.config.indifference * float(predictions.loss_C.min())
        all_C = np.ones(len(cost_C), dtype=bool)
        return choose_candidate(predictions.loss_SC, all_C, cost_C, nats, predictions.resolution)

    def _is_settled(self, choice: Choice) -> bool:
        return bool(choice.p_best_C[choice.chosen] >= self.config.confidence)

    def _select_leaders(self, problem: Problem, choice: Choice, num: int) -> list[Allocation]:
        """The best, the chosen, then those that are likeliest to be best."""
        likely = np.argsort(-choice.p_best_C, kind="stable").tolist()
        ranked = [choice.best, choice.chosen, *(c for c in likely if choice.p_best_C[c] > 0)]
        return [problem.allocations()[c] for c in dict.fromkeys(ranked)][:num]

    def _find_common_length(
        self, problem: Problem, seen: Sequence[Run], leaders: Sequence[Allocation], budget: float
    ) -> int:
        """The length in examples to which a budget of full runs brings the leaders, the shortest first."""
        candidate_runs = select_candidate_runs(problem, seen)
        reached = {run.member.allocation: run.last_examples / problem.full_examples for run in candidate_runs}
        lengths = sorted(reached.get(allocation, 0.0) for allocation in leaders)
        longest = lengths[-1]
        length = longest
        for count in range(len(lengths), 0, -1):  # as water fills vessels: those above the level get nothing
            length = (budget + sum(lengths[:count])) / count
            if length >= lengths[count - 1]:
                break
        return problem.examples(max(length, longest))
