"""Every allocation trained in full: the most expensive search, and the yardstick of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from marslora.core.decision import DecisionRecord
from marslora.core.runs import Run
from marslora.core.spec import MemberSpec
from marslora.strategies._lowest_loss import decide_by_loss
from marslora.strategies._problem import Problem
from marslora.strategies._runs import select_unfinished
from marslora.strategies._strategy import AbstractStrategy, Share


class GridStrategy(AbstractStrategy):
    """One full run of every candidate. The budget is ignored."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractStrategy.Config):
        """How far the runs go."""

        share: Share = 1.0
        """Length of every run as a share of a full run."""

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """Every candidate not yet trained."""
        until = problem.examples(self.config.share)
        wanted = [problem.member(setting, problem.num_train, until, "grid") for setting in problem.candidates()]
        return select_unfinished(wanted, runs)

    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:
        """The lowest validation loss."""
        return decide_by_loss(
            "grid",
            problem,
            runs,
            ("one seed for each allocation: differences of the size of seed noise are taken at face value",),
            ("train the closest allocations with further seeds to see which differences last",),
        )
