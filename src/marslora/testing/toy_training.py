"""A simulator of training: curves whose best allocation is known, so that a search can be replayed in moments."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from marslora.core.allocation import Allocation, Space
from marslora.core.runs import Cost, Run
from marslora.core.schedule import few_evaluation_steps
from marslora.core.setting import Setting
from marslora.core.spec import MemberSpec
from marslora.strategies import AbstractStrategy, Problem

BATCH_SIZE = 16
RATE_WEIGHT = 0.2
"""Share of what a part can gain that is lost at a learning rate ten times too high or too low."""
NO_RATES: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class ToyTraining:
    """Loss after t examples: a floor, and for each part an excess that decays at a speed its rank sets.

    ``weight``: what a part can gain; ``speed``: how its time falls with rank; ``tau``: that time at rank 8. Where
    learning rates are searched, a part gains less the further its rate is from ``best_rate``.
    """

    space: Space
    weight: dict[str, float]
    speed: dict[str, float]
    tau: dict[str, float]
    overfit: float = 0.0
    noise: float = 0.004
    seed_noise: float = 0.004
    seed: int = 0
    best_rate: float = 1e-3
    num_validation: int = 0
    broken: Callable[[MemberSpec], bool] = field(default=lambda _: False)

    def loss(self, allocation: Allocation, t: float, rows: int, rates: Mapping[str, float] = NO_RATES) -> float:
        """Return the expected loss after ``t`` examples of ``rows`` training rows, at given learning rates of parts."""
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
            total += RATE_WEIGHT * self.weight[part] * np.log10(rates.get(part, self.best_rate) / self.best_rate) ** 2
        return total

    def train(self, member: MemberSpec, full_examples: int, before: Run | None = None) -> Run:
        """Return the run of a member, with noise that depends on its id and the seed alone."""
        if self.broken(member):
            return Run(member=member, status="failed", examples=(), validation_loss=())
        until, rates = member.until_examples, _list_rates(member.setting)
        regular = [t for t in _list_regular(full_examples) if t <= until]
        looks = self._list_validations(member, regular)
        examples = sorted({0, *looks, *(before.examples if before else ())})
        rng = np.random.default_rng(int(hashlib.sha256(f"{self.seed}/{member.id}".encode()).hexdigest()[:8], 16))
        luck = self.seed_noise * rng.normal()
        wobble = {t: self.noise * np.random.default_rng([self.seed, t, len(member.id)]).normal() for t in examples}
        losses = [
            self.loss(member.allocation, t, member.data_examples, rates) * float(np.exp((luck + wobble[t]) * (t > 0)))
            for t in examples
        ]
        trained = sorted({*regular, until})
        return Run(
            member=member,
            status="complete",
            examples=tuple(examples),
            validation_loss=tuple(losses),
            train_examples=tuple(trained),
            train_loss=tuple(self._average_loss(member, t, trained) for t in trained),
            cost=Cost(examples=member.until_examples),
        )

    def _list_validations(self, member: MemberSpec, regular: Sequence[int]) -> list[int]:
        if member.validations == "few":
            steps = few_evaluation_steps([t // BATCH_SIZE for t in regular], BATCH_SIZE, self.num_validation)
            return [t for t in regular if t // BATCH_SIZE in steps]
        return [*(regular if member.validations == "regular" else ()), member.until_examples]

    def _average_loss(self, member: MemberSpec, until: int, points: Sequence[int]) -> float:
        """The expected loss in the middle between a point and the one before."""
        middle = (max((t for t in points if t < until), default=0) + until) / 2
        return self.loss(member.allocation, middle, member.data_examples, _list_rates(member.setting))

    def problem(self, full_examples: int = 12_000, **more: Any) -> Problem:
        """Return the problem that a strategy is to solve; ``more`` are further fields of `Problem`."""
        return Problem(
            space=self.space,
            num_train=full_examples // 3,
            full_examples=full_examples,
            batch_size=BATCH_SIZE,
            num_validation=self.num_validation,
            points=tuple(_list_regular(full_examples)),
            count_parameters=lambda allocation: sum(100 * rank for _, rank in allocation.ranks),
            seed=self.seed,
            **more,
        )

    def final(self, problem: Problem) -> dict[Setting, float]:
        """Return the expected loss of every candidate after a full run."""
        full, rows = problem.full_examples, problem.num_train
        return {s: self.loss(s.allocation, full, rows, _list_rates(s)) for s in problem.candidates()}

    def regret(self, problem: Problem, chosen: Setting) -> float:
        """Return the expected loss of ``chosen`` above that of the best candidate."""
        final = self.final(problem)
        return final[chosen] - min(final.values())


def _list_rates(setting: Setting) -> dict[str, float]:
    """The searched learning rate of every part."""
    rates = {part: setting.rate_of(part) for part in setting.allocation.parts}
    return {part: rate for part, rate in rates.items() if rate is not None}


def _list_regular(full_examples: int) -> list[int]:
    """The regular points of a full run, in examples: whole batches, even in the logarithm."""
    points = np.geomspace(full_examples / 300, full_examples, 20)
    return sorted({max(round(point / BATCH_SIZE), 1) * BATCH_SIZE for point in points})


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
