"""ASHA (Li et al. 2020): halving without waiting for a rung to fill; one allocation at a time is begun or promoted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marslora.core.decision import DecisionRecord
from marslora.core.runs import Run
from marslora.core.seeds import derive
from marslora.core.setting import Setting
from marslora.core.spec import MemberSpec
from marslora.strategies._lowest_loss import decide_by_loss
from marslora.strategies._problem import Problem
from marslora.strategies._rungs import RungConfig
from marslora.strategies._runs import cut_runs, select_unfinished
from marslora.strategies._strategy import AbstractStrategy, Positive

ROUNDING = 1e-9
"""Full runs by which a sum of lengths may exceed the budget through rounding."""


class AshaStrategy(AbstractStrategy):
    """One worker: promote an allocation of the best 1 / eta of the highest rung that has one, or else begin another."""

    @dataclass(frozen=True, kw_only=True)
    class Config(RungConfig):
        """The rungs, and when to end."""

        cost: Positive = 0.5
        """Full runs to spend if the problem has no budget."""

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The run that the one worker trains next; empty when it would exceed the budget."""
        budget = self.config.cost if problem.budget is None else problem.budget
        candidates = problem.candidates()
        order = np.random.default_rng(derive(problem.seed, "asha")).permutation(len(candidates))
        waiting = [candidates[c] for c in order]
        lengths = self._list_lengths(problem)
        rungs: list[dict[Setting, float]] = [{} for _ in lengths]
        spent = 0.0
        while (job := self._pick_job(rungs, waiting)) is not None:
            rung, setting = job
            before = lengths[rung - 1] if rung else 0
            spent += (lengths[rung] - before) / problem.full_examples
            if spent > budget + ROUNDING:
                return ()
            member = problem.member(setting, problem.num_train, lengths[rung], "asha")
            if todo := select_unfinished([member], runs):
                return todo
            finished = cut_runs([member], runs)
            rungs[rung][setting] = finished[0].best_loss if finished else float("inf")
            if not rung:
                waiting.remove(setting)
        return ()

    def _list_lengths(self, problem: Problem) -> list[int]:
        """Examples of each rung, the last one a full run."""
        lengths, share = [problem.examples(self.config.first_rung)], self.config.first_rung
        while share < 1:
            share = min(share * self.config.eta, 1.0)
            if problem.examples(share) > lengths[-1]:
                lengths.append(problem.examples(share))
        return lengths

    def _pick_job(
        self, rungs: Sequence[dict[Setting, float]], waiting: Sequence[Setting]
    ) -> tuple[int, Setting] | None:
        """(rung, setting): a promotion from the highest rung that allows one, else one that waits; else None."""
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
            ("allocations that lead early also lead late", "one seed for each allocation"),
            ("raise the budget, or start with a longer first rung if the curves cross",),
        )
