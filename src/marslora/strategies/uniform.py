"""One given rank for every part, nothing measured: what people do today."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from marslora.core.decision import Candidate, DecisionRecord
from marslora.core.runs import Run
from marslora.core.spec import MemberSpec
from marslora.strategies._problem import Problem
from marslora.strategies._strategy import AbstractStrategy, Count
from marslora.strategies._uniform import find_nearest_uniform


class UniformStrategy(AbstractStrategy):
    """The candidate nearest to one rank for every part."""

    measures = False

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractStrategy.Config):
        """The one rank for all parts."""

        rank: Count = 16
        """Rank of every part; the nearest candidate is taken."""

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:  # noqa: ARG002
        """Nothing: no member is trained."""
        return ()

    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:  # noqa: ARG002
        """The candidate nearest to the rank."""
        chosen = problem.at_middle_rate(find_nearest_uniform(problem, self.config.rank))
        candidates = tuple(
            Candidate(
                allocation=setting.allocation,
                learning_rate=setting.learning_rate,
                part_learning_rates=dict(setting.part_learning_rates),
                status="chosen" if setting == chosen else "dropped",
                reason=f"nearest to rank {self.config.rank} for every part"
                if setting == chosen
                else f"further from rank {self.config.rank} than {chosen}; nothing was measured",
                num_trainable=problem.count_parameters(setting.allocation),
            )
            for setting in problem.candidates()
        )
        return DecisionRecord(
            strategy="uniform",
            chosen=chosen.allocation,
            learning_rate=chosen.learning_rate,
            verdict="fallback",
            summary=f"{chosen}: nearest to rank {self.config.rank} for every part. Nothing was measured.",
            candidates=candidates,
            fallback="nothing was measured: the rank was given",
            assumptions=(f"rank {self.config.rank} suits every part",),
            next_steps=("run the `mars` strategy to learn whether another allocation is better",),
        )
