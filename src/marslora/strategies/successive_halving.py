"""Successive halving (Jamieson and Talwalkar 2016): all start short, the best go on, each run continued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from marslora.core.decision import DecisionRecord
from marslora.core.runs import Run
from marslora.core.seeds import derive
from marslora.core.setting import Setting
from marslora.core.spec import MemberSpec
from marslora.strategies._lowest_loss import decide_by_loss
from marslora.strategies._problem import Problem
from marslora.strategies._rungs import RungConfig
from marslora.strategies._runs import cut_runs, select_unfinished
from marslora.strategies._strategy import AbstractStrategy


class SuccessiveHalvingStrategy(AbstractStrategy):
    """Rungs of lengths ``first, eta * first, ...``; of n allocations at a rung, the n / eta of lowest loss go on."""

    @dataclass(frozen=True, kw_only=True)
    class Config(RungConfig):
        """The lengths of the rungs, and how many settings begin."""

        num_begun: Annotated[int, Field(ge=0)] = 0
        """Settings that begin, drawn at random; 0: all."""

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The members of the first unfinished rung; empty once one allocation is left."""
        alive, share = self._draw_settings(problem), self.config.first_rung
        while len(alive) > 1:
            wanted = [
                problem.member(setting, problem.num_train, problem.examples(share), "halving") for setting in alive
            ]
            if todo := select_unfinished(wanted, runs):
                return todo
            alive = self._select_survivors(alive, wanted, runs)
            if share >= 1:
                break
            share = min(share * self.config.eta, 1.0)
        return ()

    def _draw_settings(self, problem: Problem) -> list[Setting]:
        candidates = problem.candidates()
        order = np.random.default_rng(derive(problem.seed, "halving")).permutation(len(candidates))
        num = self.config.num_begun or len(candidates)
        return [candidates[c] for c in sorted(order[:num].tolist())]

    def _select_survivors(
        self, alive: Sequence[Setting], wanted: Sequence[MemberSpec], runs: Sequence[Run]
    ) -> list[Setting]:
        """The 1 / eta of the allocations with the lowest loss on a rung, at least one."""
        loss = {run.member.setting: run.best_loss for run in cut_runs(wanted, runs) if run.status == "complete"}
        ranked = sorted(alive, key=lambda setting: loss.get(setting, float("inf")))
        return ranked[: max(len(alive) // self.config.eta, 1)]

    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:
        """The lowest loss on the highest rung."""
        return decide_by_loss(
            "successive_halving",
            problem,
            runs,
            ("allocations that lead early also lead late", "one seed for each allocation"),
            ("start with a longer first rung if the curves cross",),
        )
