"""A sampler of Optuna (TPE, GP, CMA-ES, ...) picks one allocation after the other, each for a share of a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from marslora.core.allocation import Allocation
from marslora.core.decision import DecisionRecord
from marslora.core.errors import ConfigError
from marslora.core.runs import Run
from marslora.core.seeds import derive
from marslora.core.spec import MemberSpec
from marslora.strategies._base import AbstractStrategy, Problem, as_of, unfinished
from marslora.strategies._measured import decide_by_loss

if TYPE_CHECKING:
    import optuna

SAMPLERS = MappingProxyType(
    {"tpe": "TPESampler", "gp": "GPSampler", "cmaes": "CmaEsSampler", "qmc": "QMCSampler", "random": "RandomSampler"}
)
MOST_REPEATS = 20
"""A sampler that asks for known allocations so often in a row has had enough."""


class OptunaSamplerStrategy(AbstractStrategy):
    """Ask, train, tell. Each part's rank is an integer index of its ladder: ranks are evenly spaced to the sampler.

    An allocation that was asked before is told its loss again, at no cost. The sampler is seeded and its questions are
    asked again from the start each time, so that the answer depends on the runs alone.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractStrategy.Config):
        """Which sampler, and how it spends."""

        sampler: str = "tpe"
        """``tpe``, ``gp``, ``cmaes``, ``qmc`` or ``random``."""
        num_trials: int = 8
        """Trials where the problem has no budget."""
        share: float = 1.0
        """Length of each trial as a share of a full run, at most 1."""

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The next allocation the sampler asks for; empty when the budget is spent."""
        length = problem.examples(self.config.share) / problem.full_examples
        most = self.config.num_trials if problem.budget is None else int(problem.budget / length + 1e-9)
        study, seen, repeats = self._study(problem), dict[Allocation, float](), 0
        candidates = set(problem.candidates())
        while len(seen) < min(max(most, 1), len(candidates)) and repeats < MOST_REPEATS:
            trial = study.ask()
            allocation = _suggest(trial, problem)
            if allocation in seen or allocation not in candidates:
                study.tell(trial, seen.get(allocation, max(seen.values(), default=0.0)))
                repeats += 1
                continue
            member = self._member(problem, allocation)
            if todo := unfinished([member], runs):
                return todo
            found = as_of([member], runs)
            seen[allocation] = found[0].best_loss if found else float("inf")
            study.tell(trial, min(seen[allocation], 1e6))
            repeats = 0
        return ()

    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:
        """The lowest validation loss."""
        return decide_by_loss(
            "optuna_sampler",
            problem,
            runs,
            ("a trial's loss stands for that of a full run", "one seed an allocation"),
            ("raise the budget to give the sampler more trials",),
        )

    def _member(self, problem: Problem, allocation: Allocation) -> MemberSpec:
        until = problem.examples(self.config.share)
        return problem.member(allocation, problem.num_train, until, f"{self.config.sampler} trial")

    def _study(self, problem: Problem) -> optuna.Study:
        import optuna

        if self.config.sampler not in SAMPLERS:
            raise ConfigError(f"`sampler` must be one of {list(SAMPLERS)}, found `{self.config.sampler}`.")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        kind: Callable[..., optuna.samplers.BaseSampler] = getattr(optuna.samplers, SAMPLERS[self.config.sampler])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.create_study(sampler=kind(seed=derive(problem.seed, "sampler") % 2**31))


def _suggest(trial: optuna.Trial, problem: Problem) -> Allocation:
    ladders: Mapping[str, tuple[int, ...]] = dict(problem.space.ladders)
    return Allocation.of(
        {
            part: ladder[trial.suggest_int(part, 0, len(ladder) - 1)] if len(ladder) > 1 else ladder[0]
            for part, ladder in ladders.items()
        }
    )
