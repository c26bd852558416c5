"""One rank for every part at several learning rates, each trained in full: what careful people do today."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from marslora.core.decision import DecisionRecord
from marslora.core.runs import Run
from marslora.core.spec import MemberSpec
from marslora.strategies._lowest_loss import decide_by_loss
from marslora.strategies._problem import Problem
from marslora.strategies._runs import select_unfinished
from marslora.strategies._strategy import AbstractStrategy
from marslora.strategies._uniform import find_nearest_uniform


class RateSweepStrategy(AbstractStrategy):
    """The candidate nearest to one rank for every part, at rates spread over the ladder."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractStrategy.Config):
        """The rank, and how many learning rates are tried."""

        rank: Annotated[int, Field(ge=1)] = 16
        """Rank of every part; the nearest candidate is taken."""
        num_rates: Annotated[int, Field(ge=1)] = 4
        """Learning rates to train; all of the ladder if it has fewer."""

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The rates that are not trained yet."""
        allocation = find_nearest_uniform(problem, self.config.rank)
        rates = problem.learning_rates
        places = np.linspace(0, len(rates) - 1, min(self.config.num_rates, len(rates))).round().astype(int).tolist()
        swept = [problem.make_setting(allocation, rates[place]) for place in places]
        settings = swept or [problem.at_middle_rate(allocation)]
        wanted = [problem.member(each, problem.num_train, problem.full_examples, "rate sweep") for each in settings]
        return select_unfinished(wanted, runs)

    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:
        """The lowest validation loss."""
        return decide_by_loss(
            "rate_sweep",
            problem,
            runs,
            (f"rank {self.config.rank} suits every part; one seed for each learning rate",),
            ("run the `mars` strategy to learn whether other ranks are better",),
        )
