"""A sampler of Optuna (TPE, GP, CMA-ES, ...) picks one allocation after the other, each for a share of a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeVar

from marslora.core.allocation import Allocation
from marslora.core.decision import DecisionRecord
from marslora.core.runs import Run
from marslora.core.seeds import derive
from marslora.core.setting import Setting
from marslora.core.spec import MemberSpec
from marslora.strategies._lowest_loss import decide_by_loss
from marslora.strategies._problem import Problem
from marslora.strategies._runs import cut_runs, select_unfinished
from marslora.strategies._strategy import AbstractStrategy, Count, Share

if TYPE_CHECKING:
    import optuna

Number = TypeVar("Number", int, float)

SAMPLERS = MappingProxyType(
    {"tpe": "TPESampler", "gp": "GPSampler", "cmaes": "CmaEsSampler", "qmc": "QMCSampler", "random": "RandomSampler"}
)
"""Names of the sampler classes of Optuna, by the value of the option ``sampler``."""
MAX_REPEATS = 20
"""The search ends when the sampler suggests known allocations this many times in a row. A convention."""
ROUNDING = 1e-9
"""Full runs by which a sum of lengths may exceed the budget through rounding."""
MAX_LOSS = 1e6
"""Loss of a failed run, as the sampler sees it: a Gaussian process cannot be fitted to infinity."""


class OptunaSamplerStrategy(AbstractStrategy):
    """Asks a sampler for a setting, trains it, and tells the sampler its loss.

    A rank or rate is an integer index of its ladder, so the sampler sees even steps. If the sampler suggests
    a known allocation again, it gets the known loss at no cost. The sampler is seeded, and each call asks it all its
    questions again from the start, so that the answer depends on the runs alone.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractStrategy.Config):
        """Which sampler, and how the budget is spent."""

        sampler: Literal["tpe", "gp", "cmaes", "qmc", "random"] = "tpe"
        """Optuna's sampler: TPE, a Gaussian process, CMA-ES, quasi-Monte Carlo or random."""
        num_trials: Count = 8
        """Trials if the problem has no budget."""
        share: Share = 1.0
        """Length of each trial as a share of a full run."""

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The next setting the sampler asks for; empty when the budget is spent."""
        length = problem.examples(self.config.share) / problem.full_examples
        max_trials = self.config.num_trials if problem.budget is None else int(problem.budget / length + ROUNDING)
        study, seen, repeats = self._create_study(problem), dict[Setting, float](), 0
        candidates = set(problem.candidates())
        while len(seen) < min(max(max_trials, 1), len(candidates)) and repeats < MAX_REPEATS:
            trial = study.ask()
            setting = _suggest_setting(trial, problem)
            if setting in seen or setting not in candidates:
                study.tell(trial, seen.get(setting, max(seen.values(), default=0.0)))
                repeats += 1
                continue
            member = self._make_member(problem, setting)
            if todo := select_unfinished([member], runs):
                return todo
            finished = cut_runs([member], runs)
            seen[setting] = finished[0].best_loss if finished else float("inf")
            study.tell(trial, min(seen[setting], MAX_LOSS))
            repeats = 0
        return ()

    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:
        """The lowest validation loss."""
        return decide_by_loss(
            "optuna_sampler",
            problem,
            runs,
            ("a trial's loss stands for that of a full run", "one seed for each setting"),
            ("raise the budget to give the sampler more trials",),
        )

    def _make_member(self, problem: Problem, setting: Setting) -> MemberSpec:
        until = problem.examples(self.config.share)
        return problem.member(setting, problem.num_train, until, f"{self.config.sampler} trial")

    def _create_study(self, problem: Problem) -> optuna.Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        make_sampler: Callable[..., optuna.samplers.BaseSampler] = getattr(
            optuna.samplers, SAMPLERS[self.config.sampler]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.create_study(sampler=make_sampler(seed=derive(problem.seed, "sampler") % 2**31))


def _suggest_setting(trial: optuna.Trial, problem: Problem) -> Setting:
    ranks = {part: _suggest_step(trial, part, ladder) for part, ladder in problem.space.ladders}
    if not problem.learning_rates:
        return Setting(allocation=Allocation.of(ranks))
    rate = _suggest_step(trial, "learning_rate", problem.learning_rates)
    factors = {part: _suggest_step(trial, f"{part}_factor", own) for part, own in problem.part_rate_factors}
    return problem.make_setting(Allocation.of(ranks), rate, factors)


def _suggest_step(trial: optuna.Trial, name: str, ladder: Sequence[Number]) -> Number:
    return ladder[trial.suggest_int(name, 0, len(ladder) - 1)] if len(ladder) > 1 else ladder[0]
