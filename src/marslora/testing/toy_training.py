"""A simulator of training: curves whose best allocation is known, so that a search can be replayed in moments."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from marslora.core.allocation import Allocation, Space
from marslora.core.runs import Cost, Run
from marslora.core.setting import Setting
from marslora.core.spec import MemberSpec
from marslora.strategies import AbstractStrategy, Problem


@dataclass(frozen=True)
class ToyTraining:
    """Loss after t examples: a floor, and for each part an excess that decays at a speed its rank sets.

    ``weight``: what a part can gain; ``speed``: how its time falls with rank; ``tau``: that time at rank 8.
    """

    space: Space
    weight: dict[str, float]
    speed: dict[str, float]
    tau: dict[str, float]
    overfit: float = 0.0
    noise: float = 0.004
    seed_noise: float = 0.004
    seed: int = 0
    broken: Callable[[MemberSpec], bool] = field(default=lambda _: False)

    def loss(self, allocation: Allocation, t: float, rows: int) -> float:
        """Return the expected loss after ``t`` examples of ``rows`` training rows."""
        passes = max(t / rows - 1.0, 0.0)
        total = 1.0
        for part, rank in allocation.ranks:
            if part not in self.weight:
                continue
            if rank == 0:
                total += self.weight[part]
                continue
            tau = self.tau[part] * (rank / 8) ** -self.speed[part]
            total += self.weight[part] * (1 + t / tau) ** -0.8
            total += self.overfit * passes * np.sqrt(rank / 8) * self.weight[part]
        return total

    def train(self, member: MemberSpec, full_examples: int, before: Run | None = None) -> Run:
        """Return the run of a member, with noise that depends on its id and the seed alone."""
        if self.broken(member):
            return Run(member=member, status="failed", examples=(), validation_loss=())
        points = {0, member.until_examples, *(before.examples if before else ())}
        points |= {int(t) for t in np.geomspace(full_examples / 300, full_examples, 20) if t < member.until_examples}
        examples = sorted(points)
        rng = np.random.default_rng(int(hashlib.sha256(f"{self.seed}/{member.id}".encode()).hexdigest()[:8], 16))
        luck = self.seed_noise * rng.normal()
        wobble = {t: self.noise * np.random.default_rng([self.seed, t, len(member.id)]).normal() for t in examples}
        losses = [
            self.loss(member.allocation, t, member.data_examples) * float(np.exp((luck + wobble[t]) * (t > 0)))
            for t in examples
        ]
        return Run(
            member=member,
            status="complete",
            examples=tuple(examples),
            validation_loss=tuple(losses),
            cost=Cost(examples=member.until_examples),
        )

    def problem(self, full_examples: int = 12_000, **more: Any) -> Problem:
        """Return the problem that a strategy is to solve; ``more`` are further fields of `Problem`."""
        return Problem(
            space=self.space,
            num_train=full_examples // 3,
            full_examples=full_examples,
            batch_size=16,
            count_parameters=lambda allocation: sum(100 * rank for _, rank in allocation.ranks),
            seed=self.seed,
            **more,
        )

    def final(self, problem: Problem) -> dict[Setting, float]:
        """Return the expected loss of every candidate after a full run."""
        return {s: self.loss(s.allocation, problem.full_examples, problem.num_train) for s in problem.candidates()}

    def regret(self, problem: Problem, chosen: Setting) -> float:
        """Return the expected loss of ``chosen`` above that of the best candidate."""
        final = self.final(problem)
        return final[chosen] - min(final.values())


def replay(strategy: AbstractStrategy, toy: ToyTraining, problem: Problem, max_rounds: int = 100) -> list[Run]:
    """Run a strategy on simulated training until it proposes nothing more; return all runs."""
    runs: dict[str, Run] = {}
    for _ in range(max_rounds):
        proposed: Sequence[MemberSpec] = strategy.propose(problem, list(runs.values()))
        if not proposed:
            return list(runs.values())
        for member in proposed:
            runs[member.id] = toy.train(member, problem.full_examples, runs.get(member.id))
    raise AssertionError("the strategy never had enough")


PAIR = Space.of({"eye": (2, 4, 8, 16), "tongue": (2, 4, 8, 16)})
CLEAR = ToyTraining(PAIR, {"eye": 1.0, "tongue": 1.0}, {"eye": 1.2, "tongue": 1.0}, {"eye": 900.0, "tongue": 200.0})
NULL = ToyTraining(PAIR, {"eye": 1.0, "tongue": 1.0}, {"eye": 0.0, "tongue": 0.0}, {"eye": 300.0, "tongue": 300.0})
TRIO = ToyTraining(
    Space.of({"eye": (2, 8, 32), "ear": (2, 8, 32), "tongue": (2, 8, 32)}),
    {"eye": 1.0, "ear": 0.6, "tongue": 0.8},
    {"eye": 0.9, "ear": 0.6, "tongue": 0.8},
    {"eye": 900.0, "ear": 400.0, "tongue": 200.0},
)
