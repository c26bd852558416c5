"""Allocations drawn at random and trained in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marslora.core.decision import DecisionRecord
from marslora.core.runs import Run
from marslora.core.seeds import derive
from marslora.core.spec import MemberSpec
from marslora.strategies._lowest_loss import decide_by_loss
from marslora.strategies._problem import Problem
from marslora.strategies._runs import select_unfinished
from marslora.strategies._strategy import AbstractStrategy, Count


class RandomStrategy(AbstractStrategy):
    """As many random candidates as the budget pays for, each trained in full."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractStrategy.Config):
        """How many allocations are drawn."""

        num_runs: Count = 4
        """Allocations to draw if the problem has no budget."""

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The drawn candidates that are not trained yet."""
        candidates = problem.candidates()
        num_drawn = self.config.num_runs if problem.budget is None else int(problem.budget)
        order = np.random.default_rng(derive(problem.seed, "random_search")).permutation(len(candidates))
        drawn = [candidates[c] for c in order[: max(num_drawn, 1)]]
        until = problem.full_examples
        wanted = [problem.member(setting, problem.num_train, until, "random") for setting in drawn]
        return select_unfinished(wanted, runs)

    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:
        """The lowest validation loss."""
        return decide_by_loss(
            "random_search",
            problem,
            runs,
            ("the drawn allocations stand for all; one seed for each allocation",),
            ("raise the budget to draw more allocations",),
        )
