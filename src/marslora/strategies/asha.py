"""ASHA (Li et al. 2020): halving without waiting for a rung to fill; one allocation at a time is begun or promoted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marslora.core.allocation import Allocation
from marslora.core.decision import DecisionRecord
from marslora.core.runs import Run
from marslora.core.seeds import derive
from marslora.core.spec import MemberSpec
from marslora.strategies._base import AbstractStrategy, Problem, as_of, check_rungs, unfinished
from marslora.strategies._measured import decide_by_loss


class AshaStrategy(AbstractStrategy):
    """One worker: promote an allocation of the best 1 / eta of the highest rung that has one, or else begin another."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractStrategy.Config):
        """The ladder of rungs, and when to end."""

        eta: int = 4
        first_rung: float = 1 / 64
        """Length of the first rung as a share of a full run."""
        cost: float = 0.5
        """Run equivalents where the problem has no budget."""

        def __post_init__(self) -> None:
            check_rungs(self.eta, self.first_rung)

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The next job of the one worker; empty when it would exceed the budget."""
        budget = self.config.cost if problem.budget is None else problem.budget
        candidates = problem.candidates()
        order = np.random.default_rng(derive(problem.seed, "asha")).permutation(len(candidates))
        waiting = [candidates[c] for c in order]
        lengths = self._lengths(problem)
        rungs: list[dict[Allocation, float]] = [{} for _ in lengths]
        spent = 0.0
        while (job := self._job(rungs, waiting)) is not None:
            rung, allocation = job
            before = lengths[rung - 1] if rung else 0
            spent += (lengths[rung] - before) / problem.full_examples
            if spent > budget + 1e-9:
                return ()
            member = problem.member(allocation, problem.num_train, lengths[rung], "asha")
            if todo := unfinished([member], runs):
                return todo
            found = as_of([member], runs)
            rungs[rung][allocation] = found[0].best_loss if found else float("inf")
            if not rung:
                waiting.remove(allocation)
        return ()

    def _lengths(self, problem: Problem) -> list[int]:
        lengths, share = [problem.examples(self.config.first_rung)], self.config.first_rung
        while share < 1:
            share = min(share * self.config.eta, 1.0)
            if problem.examples(share) > lengths[-1]:
                lengths.append(problem.examples(share))
        return lengths

    def _job(
        self, rungs: Sequence[dict[Allocation, float]], waiting: Sequence[Allocation]
    ) -> tuple[int, Allocation] | None:
        for rung in reversed(range(len(rungs) - 1)):
            ranked = sorted(rungs[rung], key=rungs[rung].__getitem__)
            ready = [a for a in ranked[: len(ranked) // self.config.eta] if a not in rungs[rung + 1]]
            if ready:
                return rung + 1, ready[0]
        return (0, waiting[0]) if waiting else None

    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:
        """The lowest loss on the highest rung."""
        return decide_by_loss(
            "asha",
            problem,
            runs,
            ("allocations that lead early also lead late", "one seed a cell"),
            ("raise the budget, or start with a longer first rung if the curves cross",),
        )
