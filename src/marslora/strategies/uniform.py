"""One given rank for every part, nothing measured: what people do today."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marslora.core.allocation import Allocation
from marslora.core.decision import Candidate, DecisionRecord
from marslora.core.runs import Run
from marslora.core.spec import MemberSpec
from marslora.strategies._base import AbstractStrategy, Problem


class UniformStrategy(AbstractStrategy):
    """The candidate nearest to one rank for every part."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractStrategy.Config):
        """The rank."""

        rank: int = 16

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:  # noqa: ARG002
        """Nothing."""
        return ()

    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:  # noqa: ARG002
        """The nearest candidate."""
        chosen = nearest_to_uniform(problem, self.config.rank)
        candidates = tuple(
            Candidate(
                allocation=allocation,
                status="chosen" if allocation == chosen else "dropped",
                reason=f"nearest to rank {self.config.rank} for every part"
                if allocation == chosen
                else f"further from rank {self.config.rank} than {chosen}; nothing was measured",
                num_trainable=problem.count_parameters(allocation),
            )
            for allocation in problem.candidates()
        )
        return DecisionRecord(
            strategy="uniform",
            chosen=chosen,
            verdict="fallback",
            summary=f"{chosen}: nearest to rank {self.config.rank} for every part. Nothing was measured.",
            candidates=candidates,
            fallback="nothing was measured: the rank was given",
            assumptions=(f"rank {self.config.rank} suits every part",),
            next_steps=("run the `mars` strategy to learn whether another allocation is better",),
        )


def nearest_to_uniform(problem: Problem, rank: int) -> Allocation:
    """The candidate least far from one rank for every part, in log ranks; the cheaper one of two as near."""

    def distance(allocation: Allocation) -> float:
        return sum(float(np.log2(max(found, 0.5) / max(rank, 0.5)) ** 2) for _, found in allocation.ranks)

    return min(
        problem.candidates(), key=lambda allocation: (distance(allocation), problem.count_parameters(allocation))
    )


def equal_uniform(problem: Problem, allocation: Allocation) -> Allocation:
    """One rank for every searched part, as near as it gets to the trainable parameters of ``allocation``."""
    wanted = problem.count_parameters(allocation)

    def uniform(rank: int) -> Allocation:
        return allocation.replace(**dict.fromkeys(problem.space.searched, rank))

    largest = max(problem.space.ladder(part)[-1] for part in problem.space.parts)
    return min(map(uniform, range(1, largest + 1)), key=lambda a: abs(problem.count_parameters(a) - wanted))
