"""MARS as published (arXiv 2603.00720): only allocations whose parts converge together, of these the best by Law-P.

Rounds: (1) part runs, each part alone, for Law-C; (2) short candidate runs of balanced allocations and of a few
unbalanced controls, for Law-P; (3) those likeliest to be best go on. The final run may continue the chosen one. As in
`marslora.strategies.mars`, each call re-enacts the rounds that are finished.
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
from marslora.strategies._analysis import Analysis, analyse_runs
from marslora.strategies._calibration import (
    pick_distant,
    plan_calibration,
    plan_candidate_runs,
    plan_part_runs,
    select_candidate_runs,
)
from marslora.strategies._decision import write_decision
from marslora.strategies._problem import Problem
from marslora.strategies._runs import cut_runs, select_unfinished
from marslora.strategies._strategy import AbstractStrategy, Count, Positive, Share


class MarsPaperStrategy(AbstractStrategy):
    """Convergence laws prune, a performance law picks."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractStrategy.Config):
        """How much is measured, and what counts as equal."""

        cost: Positive = 0.9
        """Full runs of calibration if the problem has no budget."""
        data_shares: tuple[Share, ...] = (1 / 32, 1 / 8)
        """Data sizes of part runs, as shares of the training rows."""
        num_balanced: Count = 6
        """Balanced allocations of the second round."""
        num_controls: Annotated[int, Field(ge=0)] = 2
        """Unbalanced allocations of the second round; more if fewer are balanced."""
        num_extended: Count = 3
        """Allocations that go on after that."""
        tolerance: Annotated[float, Field(ge=1)] = 1.25
        """Ratio of convergence times that counts as balanced."""
        indifference: Annotated[float, Field(ge=0)] = 0.001
        """Relative loss that a cheaper allocation may cost in expectation if it cannot be told from the best."""

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The unfinished members of the first unfinished round."""
        num_candidates = min(self.config.num_balanced + self.config.num_controls, len(problem.allocations()))
        lengths = plan_calibration(problem, self.config.cost, num_candidates, self.config.num_extended)
        first = plan_part_runs(problem, self.config.data_shares, lengths)
        if todo := select_unfinished(first, runs):
            return todo
        seen = cut_runs(first, runs)
        picked = self._pick_candidates(self._analyse(problem, seen))
        second = plan_candidate_runs(problem, picked, lengths.candidate)
        if todo := select_unfinished(second, runs):
            return todo
        seen += cut_runs(second, runs)
        candidate_runs = select_candidate_runs(problem, runs)
        begun = [run.member.allocation for run in candidate_runs if run.last_examples > lengths.candidate]
        leaders = self._select_leaders(self._analyse(problem, seen), sorted(begun, key=str))
        return select_unfinished(plan_candidate_runs(problem, leaders, lengths.extended), runs)

    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:
        """The choice by Law-P among the balanced allocations, or the stated fallback."""
        return write_decision("mars_paper", problem, runs, self._analyse(problem, runs))

    def _analyse(self, problem: Problem, runs: Sequence[Run]) -> Analysis:
        ordered = tuple(sorted(runs, key=lambda run: run.member.id))
        return analyse_runs(problem, ordered, self.config.tolerance, self.config.indifference)

    def _pick_candidates(self, analysis: Analysis) -> list[Allocation]:
        """Round 2: the most balanced, others balanced and far apart, then controls far from these."""
        kept = set(np.flatnonzero(analysis.kept_C).tolist())
        times = analysis.predicted_times
        first = [min(kept, key=lambda c: (times.imbalance_C[c], c))] if times else []
        num_left = self.config.num_balanced - len(first)
        picked = first + pick_distant(analysis.candidates, first, sorted(kept), num_left)
        rest = [c for c in range(len(analysis.candidates)) if c not in picked]
        pool = [c for c in rest if c not in kept] or rest
        num_left = self.config.num_balanced + self.config.num_controls - len(picked)
        picked += pick_distant(analysis.candidates, picked, pool, num_left)
        return [analysis.candidates[c] for c in picked]

    def _select_leaders(self, analysis: Analysis, begun: Sequence[Allocation]) -> list[Allocation]:
        """Round 3: those that already went on, the best and the chosen, then those likeliest to be best."""
        if analysis.choice is None:
            return list(begun)
        likely = np.argsort(-analysis.choice.p_best_C, kind="stable").tolist()
        possible = [c for c in likely if analysis.choice.p_best_C[c] > 0]
        ranked = [analysis.candidates[c] for c in (analysis.choice.best, analysis.choice.chosen, *possible)]
        return list(dict.fromkeys([*begun, *ranked]))[: self.config.num_extended]
