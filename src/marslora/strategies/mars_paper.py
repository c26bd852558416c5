"""MARS as published (arXiv 2603.00720): only allocations whose parts converge together, of these the best by Law-P.

Rounds: (1) arms that adapt one part alone, for Law-C; (2) short joint runs of the balanced allocations and of a few
unbalanced controls, for Law-P; (3) the likeliest of them go on. The final run may continue the winner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marslora.core.allocation import Allocation
from marslora.core.decision import DecisionRecord
from marslora.core.runs import Run
from marslora.core.spec import MemberSpec
from marslora.strategies._analysis import Analysis, joint_runs, study
from marslora.strategies._base import AbstractStrategy, Problem, as_of, unfinished
from marslora.strategies._calibration import arms, joint, plan, spread_out
from marslora.strategies._decision import decision


class MarsPaperStrategy(AbstractStrategy):
    """Convergence laws prune, a performance law picks."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractStrategy.Config):
        """How much is measured, and what counts as equal."""

        cost: float = 0.9
        """Run equivalents of calibration where the problem has no budget."""
        data_shares: tuple[float, ...] = (1 / 32, 1 / 8)
        """Data sizes of the arms, as shares of the training rows."""
        num_joint: int = 6
        """Balanced allocations that are trained jointly."""
        num_controls: int = 2
        """Unbalanced ones beside them; more where fewer are balanced."""
        num_extended: int = 3
        """Allocations that go on after that."""
        tolerance: float = 1.25
        """Ratio of convergence times that counts as balanced."""
        indifference: float = 0.001
        """Relative loss that a cheaper allocation may cost in expectation where it cannot be told from the best."""

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The unfinished members of the first unfinished round."""
        num_joint = min(self.config.num_joint + self.config.num_controls, len(problem.candidates()))
        lengths = plan(problem, self.config.cost, num_joint, self.config.num_extended)
        first = arms(problem, self.config.data_shares, lengths)
        if todo := unfinished(first, runs):
            return todo
        seen = as_of(first, runs)
        second = joint(problem, self._measured(self._study(problem, seen)), lengths.joint)
        if todo := unfinished(second, runs):
            return todo
        seen += as_of(second, runs)
        begun = [run.member.allocation for run in joint_runs(problem, runs) if run.last_examples > lengths.joint]
        leaders = self._leaders(self._study(problem, seen), sorted(begun, key=str))
        return unfinished(joint(problem, leaders, lengths.extended), runs)

    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:
        """The choice by Law-P among the balanced allocations, or the stated fallback."""
        return decision("mars_paper", problem, runs, self._study(problem, runs))

    def _study(self, problem: Problem, runs: Sequence[Run]) -> Analysis:
        ordered = tuple(sorted(runs, key=lambda run: run.member.id))
        return study(problem, ordered, self.config.tolerance, self.config.indifference)

    def _measured(self, found: Analysis) -> list[Allocation]:
        """What is trained jointly: the most balanced, others balanced and spread out, then controls far from these."""
        kept = set(np.flatnonzero(found.kept_C).tolist())
        balanced = found.balance
        first = [min(kept, key=lambda c: (balanced.mismatch_C[c], c))] if balanced else []
        chosen = first + spread_out(found.candidates, first, sorted(kept), self.config.num_joint - len(first))
        rest = [c for c in range(len(found.candidates)) if c not in chosen]
        pool = [c for c in rest if c not in kept] or rest
        num_left = self.config.num_joint + self.config.num_controls - len(chosen)
        chosen += spread_out(found.candidates, chosen, pool, num_left)
        return [found.candidates[c] for c in chosen]

    def _leaders(self, found: Analysis, begun: Sequence[Allocation]) -> list[Allocation]:
        """The allocations that go on: those that have begun to, the best and the chosen, the likeliest to be best."""
        if found.choice is None:
            return list(begun)
        likely = np.argsort(-found.choice.p_best_C, kind="stable").tolist()
        possible = [c for c in likely if found.choice.p_best_C[c] > 0]
        ranked = [found.candidates[c] for c in (found.choice.best, found.choice.chosen, *possible)]
        return list(dict.fromkeys([*begun, *ranked]))[: self.config.num_extended]
