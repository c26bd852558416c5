"""MARS (arXiv 2603.00720): balance the parts' convergence, then pick by a law of performance, with how sure that is.

Rounds: (1) arms that adapt one part alone, for Law-C; (2) short joint runs of the balanced allocations and of a few
unbalanced controls, for Law-P; (3) the likeliest of them go on. The final run may continue the winner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marslora.core.allocation import Allocation
from marslora.core.decision import Decision, LawFit
from marslora.core.runs import Run
from marslora.core.seeds import derive
from marslora.core.spec import MemberSpec
from marslora.laws import convergence, performance
from marslora.search import _account, _calibration
from marslora.search._balance import Balance, balance, closed_forms
from marslora.search._base import AbstractStrategy, Problem, as_of, unfinished, usable
from marslora.search._choice import Array, Choice, choose
from marslora.search._outlook import Outlook, outlook

SHARES = (0.9, 0.75, 0.5)
"""Shares of the way to the floor that may define convergence: the largest that most arms of every part reached."""
REACHED = 0.6
CONTRADICTION = 0.9
"""The pruning by balance is lifted where some dropped allocation beats every balanced one with so much probability."""


class MarsStrategy(AbstractStrategy):
    """Convergence laws prune, a performance law picks."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractStrategy.Config):
        """How much is measured, and what counts as equal."""

        cost: float = 0.9
        """Run equivalents of calibration where the problem has no budget."""
        data_shares: tuple[float, ...] = (1 / 32, 1 / 8)
        """Data sizes of the arms, as shares of the training rows."""
        num_joint: int = 6
        """Balanced allocations that are trained jointly."""
        num_controls: int = 2
        """Unbalanced ones beside them."""
        num_extended: int = 3
        """Allocations that go on after that."""
        tolerance: float = 1.25
        """Ratio of convergence times that counts as balanced."""
        indifference: float = 0.005
        """Relative loss that a cheaper allocation may cost in expectation where the two cannot be told apart."""

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The unfinished members of the first unfinished round."""
        lengths = self._plan(problem)
        arms = _calibration.arms(problem, self.config.data_shares, lengths)
        if todo := unfinished(arms, runs):
            return todo
        arm_runs = as_of(arms, runs)
        joint = _calibration.joint(problem, self._measured(self._study(problem, arm_runs)), lengths.joint)
        if todo := unfinished(joint, runs):
            return todo
        seen = self._study(problem, [*arm_runs, *as_of(joint, runs)])
        return unfinished(_calibration.joint(problem, self._leaders(seen), lengths.extended), runs)

    def decide(self, problem: Problem, runs: Sequence[Run]) -> Decision:
        """The choice by Law-P among the balanced allocations, or the stated fallback."""
        return _account.decision(problem, runs, self._study(problem, runs))

    def _plan(self, problem: Problem) -> _calibration.Plan:
        num = min(self.config.num_joint + self.config.num_controls, len(problem.candidates()))
        return _calibration.plan(problem, self.config.cost, num, self.config.num_extended)

    def _study(self, problem: Problem, runs: Sequence[Run]) -> _account.Study:
        """Everything that follows from the runs."""
        candidates = problem.candidates()
        parts, share = _calibration.arm_parts(problem), 1.0
        times: dict[str, LawFit] = {}
        if parts:
            times, share = self._convergence_laws(problem, runs, parts)
        known = {part: law for part, law in times.items() if law.status != "failed"}
        balanced = None
        if len(known) > 1 and len(known) == len(parts):
            balanced = balance(candidates, known, problem.num_train, derive(problem.seed, "balance"))
        kept_C = balanced.balanced(np.log(self.config.tolerance)) if balanced else np.ones(len(candidates), dtype=bool)
        law, losses = self._performance(problem, runs, balanced)
        choice, lifted = None, False
        if losses is not None:
            choice, lifted = self._choose(problem, losses, kept_C)
        return _account.Study(
            candidates=candidates,
            share=share,
            times=times,
            closed_forms=closed_forms(problem.space, times, problem.num_train) if len(times) > 1 else (),
            balance=balanced,
            kept_C=kept_C,
            law=law,
            outlook=losses,
            choice=choice,
            lifted=lifted,
        )

    def _convergence_laws(
        self, problem: Problem, runs: Sequence[Run], parts: Sequence[str]
    ) -> tuple[dict[str, LawFit], float]:
        """Law-C of each part, at the largest share of the way that most of its arms reached."""
        arms = {
            part: [run for run in runs if run.member.allocation.active == (part,) and usable(run)] for part in parts
        }
        points, share = {}, SHARES[-1]
        for share in SHARES:
            points = {part: convergence.points_of(arms[part], part, share, problem.full_examples) for part in parts}
            if all(sum(not p.censored for p in found) >= REACHED * len(found) for found in points.values()):
                break
        fitter = convergence.ConvergenceLaw()
        return {
            part: fitter.fit(points[part], part, derive(problem.seed, "convergence", part)) for part in parts
        }, share

    def _performance(
        self, problem: Problem, runs: Sequence[Run], balanced: Balance | None
    ) -> tuple[LawFit, Outlook | None]:
        """Law-P on all joint runs, and what it predicts of every candidate."""
        candidates = problem.candidates()
        mismatch = None
        if balanced is not None:
            mismatch = {
                allocation: float(value) for allocation, value in zip(candidates, balanced.mismatch_C, strict=True)
            }
        params = {allocation: float(problem.count_parameters(allocation)) for allocation in candidates}
        joint = joint_runs(problem, runs)
        start = min((run.last_examples for run in joint), default=0) / 8
        points = performance.points_of(joint, mismatch, params, max(start, problem.batch_size))
        law = performance.PerformanceLaw().fit(points, "allocation", derive(problem.seed, "performance"))
        if law.status == "failed":
            return law, None
        inputs = [
            performance.inputs_of(
                allocation, problem.full_examples, (mismatch or {}).get(allocation), params[allocation]
            )
            for allocation in candidates
        ]
        return law, outlook(law, candidates, inputs, derive(problem.seed, "outlook"))

    def _choose(self, problem: Problem, losses: Outlook, kept_C: NDArray[np.bool_]) -> tuple[Choice, bool]:
        """The choice among the balanced, or among all where the data contradict the balance."""
        candidates = problem.candidates()
        lifted = False
        if not kept_C.all():
            ahead_S = losses.loss_SC[:, ~kept_C].min(1) < losses.loss_SC[:, kept_C].min(1)
            lifted = bool(ahead_S.mean() >= CONTRADICTION)
        cost_C = [problem.count_parameters(allocation) for allocation in candidates]
        indifference = max(self.config.indifference * float(losses.loss_C.min()), losses.noise)
        return choose(losses.loss_SC, np.ones_like(kept_C) if lifted else kept_C, cost_C, indifference), lifted

    def _measured(self, study: _account.Study) -> list[Allocation]:
        """What is trained jointly: the most balanced, others balanced and spread out, then controls far from these."""
        kept = [int(c) for c in np.flatnonzero(study.kept_C)]
        order = (
            np.argsort(study.balance.mismatch_C, kind="stable") if study.balance else np.arange(len(study.candidates))
        )
        ranked = [int(c) for c in order if c in kept]
        first = ranked[:1] if study.balance else []
        chosen = first + _calibration.spread_out(study.candidates, first, ranked, self.config.num_joint - len(first))
        others = [c for c in range(len(study.candidates)) if c not in chosen and c not in kept]
        pool = others or [c for c in kept if c not in chosen]
        chosen += _calibration.spread_out(study.candidates, chosen, pool, self.config.num_controls)
        return [study.candidates[c] for c in chosen]

    def _leaders(self, study: _account.Study) -> list[Allocation]:
        """The allocations that go on: the likeliest to be best, or to be chosen."""
        if study.choice is None:
            return []
        p_best_C: Array = study.choice.p_best_C
        order = [study.choice.best, study.choice.chosen, *np.argsort(-p_best_C, kind="stable")]
        unique = list(dict.fromkeys(int(c) for c in order if p_best_C[c] > 0 or c == study.choice.chosen))
        return [study.candidates[c] for c in unique[: self.config.num_extended]]


def joint_runs(problem: Problem, runs: Sequence[Run]) -> list[Run]:
    """The usable runs of whole candidates on all rows."""
    candidates = set(problem.candidates())
    return [
        run
        for run in runs
        if usable(run) and run.member.data_examples == problem.num_train and run.member.allocation in candidates
    ]
