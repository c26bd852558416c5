"""Optuna drives your training, marslora's strategies decide: a sampler and a pruner for `optuna.create_study`.

    sampler = MarsSampler({"vision": (4, 16, 64), "language": (4, 16, 64)}, num_train=9000, full_examples=18000)
    study = optuna.create_study(sampler=sampler, pruner=MarsPruner())
    study.optimize(objective)  # ends by itself: the last trial is the final run
    print(sampler.decide(study).summary)

The objective asks `MarsSampler.suggest` what to train, reports validation losses with examples seen as the step, and
stops where the run ends::

    def objective(trial):
        run = sampler.suggest(trial)
        model = restore(run.resume) if run.resume is not None else fresh(run.ranks, run.seed)
        for examples, loss in train(model, until=run.examples):
            trial.report(loss, examples)
        save(model, trial.number)
        return loss

An objective that knows of no `run.examples` may train on and ask ``trial.should_prune()`` instead: the pruner says yes
once the strategy has seen enough. What Optuna's interface cannot express is going on with a trial that has ended, which
is how these searches save most: here that is a further trial of the same parameters whose `Suggestion.resume` names the
trial to continue. Who trains from scratch instead pays for the beginning twice. The same works with ``study.ask()`` and
``study.tell()``; then `MarsSampler.is_done` says when to stop, and the runs of a round can be trained side by side.

The other way round, Optuna's samplers driving the packed engine, is the strategy `optuna_sampler`.
"""

from __future__ import annotations

import contextlib
import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna import Study, Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from marslora import strategies
from marslora.core import plugins
from marslora.core.allocation import Allocation, Space
from marslora.core.decision import DecisionRecord
from marslora.core.errors import ConfigError
from marslora.core.runs import Cost, Run
from marslora.core.spec import MemberSpec
from marslora.strategies import AbstractStrategy, Problem

MEMBER, IS_FINAL = "marslora.member", "marslora.is_final"
"""User attributes of a trial: what it trains, as a `MemberSpec`; and whether it is the final run."""


@dataclass(frozen=True)
class Suggestion:
    """What a trial should train."""

    ranks: dict[str, int]
    """Of every part; 0 leaves a part as it is."""
    examples: int
    """Train until so many examples were seen in all, those of the trial that is continued included."""
    rows: int
    """Cycle through the first so many training rows, in one order for all trials."""
    seed: int
    """Of the initialisation."""
    resume: int | None
    """The number of the trial whose weights and optimizer this one goes on from; None: from nothing."""
    is_final: bool
    """This is the run of the chosen ranks to its end."""


class MarsSampler(BaseSampler):
    """Ranks of every part as a strategy of this package asks for them; other parameters are drawn at random.

    Args:
        ranks: The ladder of every part.
        num_train: Training rows there are.
        full_examples: Examples seen by one full run: the unit of cost.
        batch_size: Lengths of runs are multiples of it.
        budget: Most run equivalents spent before the final run; None: what the strategy needs.
        strategy: A kind of `marslora.strategies`.
        options: Of the strategy.
        count_parameters: Trainable parameters of the ranks of all parts; None: the sum of the ranks stands for them.
        max_parameters: Ranks with more are not candidates.
        seed: Of the strategy and of what is drawn at random.
    """

    def __init__(
        self,
        ranks: Mapping[str, Sequence[int]],
        *,
        num_train: int,
        full_examples: int,
        batch_size: int = 16,
        budget: float | None = None,
        strategy: str = "mars",
        options: Mapping[str, Any] | None = None,
        count_parameters: Callable[[Mapping[str, int]], int] | None = None,
        max_parameters: int | None = None,
        seed: int = 0,
    ) -> None:
        count: Callable[[Mapping[str, int]], int] = count_parameters or (lambda found: sum(found.values()))
        self._strategy = plugins.load(strategies, strategy, AbstractStrategy).of(options)
        self._problem = Problem(
            space=Space.parse({part: tuple(ladder) for part, ladder in ranks.items()}, "`ranks`"),
            num_train=num_train,
            full_examples=full_examples,
            batch_size=batch_size,
            count_parameters=lambda allocation: count(allocation.as_dict()),
            seed=seed,
            budget=budget,
            max_parameters=max_parameters,
        )
        self._random = RandomSampler(seed=seed)

    def suggest(self, trial: Trial) -> Suggestion:
        """What ``trial`` should train; the ranks become its parameters."""
        attributes = trial.study._storage.get_trial(trial._trial_id).user_attrs
        if MEMBER not in attributes:
            raise ConfigError(f"trial {trial.number} is not one of this sampler's: its parameters were given to it.")
        member = MemberSpec.parse(attributes[MEMBER])
        ranks = {name: int(trial._suggest(name, each)) for name, each in self._distributions().items()}
        before = [each for each in _trials_of(trial.study).get(member.id, ()) if each.number != trial.number]
        return Suggestion(
            ranks=ranks,
            examples=member.until_examples,
            rows=member.data_examples,
            seed=member.seed,
            resume=before[-1].number if before and before[-1].state is not TrialState.FAIL else None,
            is_final=attributes.get(IS_FINAL, False),
        )

    def decide(self, study: Study) -> DecisionRecord:
        """The choice on what the trials have shown so far."""
        return self._strategy.decide(self._problem, runs(study))

    def is_done(self, study: Study) -> bool:
        """Whether the final run has ended, or the chosen ranks were trained to the end on the way."""
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        trials = study.get_trials(deepcopy=False, states=ended)
        return any(trial.user_attrs.get(IS_FINAL) for trial in trials) or self._needs_no_final(runs(study))

    def _needs_no_final(self, seen: Sequence[Run]) -> bool:
        if not any(run.last_examples >= self._problem.full_examples for run in seen):
            return False
        if self._strategy.propose(self._problem, seen):
            return False
        going_on = self._strategy.decide(self._problem, seen).continue_run
        return any(run.member.id == going_on and run.last_examples >= self._problem.full_examples for run in seen)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Give the trial its run. Raises `ConfigError` where there is none: the round's are trained, or all is done."""
        if "fixed_params" in trial.system_attrs:
            return
        if study.direction is not StudyDirection.MINIMIZE:
            raise ConfigError("the study must minimise: what is reported are validation losses.")
        member, is_final = self._next(study)
        if member is None:
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            raise ConfigError(
                "the search has ended: `decide` tells the choice."
                if self.is_done(study)
                else "every run of this round is in training: tell Optuna of one before asking for the next."
            )
        for name, value in ((MEMBER, member.model_dump(mode="json")), (IS_FINAL, is_final)):
            trial.user_attrs[name] = value
            study._storage.set_trial_user_attr(trial._trial_id, name, value)

    def _next(self, study: Study) -> tuple[MemberSpec | None, bool]:
        """What is to be trained next and whether that is the final run; None where there is nothing at the moment."""
        seen = runs(study)
        taken = {run.member.id for run in seen if run.status == "running"}
        if wanted := self._strategy.propose(self._problem, seen):
            return next((member for member in wanted if member.id not in taken), None), False
        if self.is_done(study) or _is_finishing(study):
            return None, True
        problem, chosen = self._problem, self._strategy.decide(self._problem, seen).chosen
        return problem.member(chosen, problem.num_train, problem.full_examples, "final run"), True

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """One choice a part: its ladder, and 0."""
        return self._distributions()

    def _distributions(self) -> dict[str, BaseDistribution]:
        ladders = self._problem.space.ladders
        return {part: CategoricalDistribution(tuple(sorted({0, *ladder}))) for part, ladder in ladders}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The ranks of the trial's run; nothing for a trial whose parameters were given to it."""
        if MEMBER not in trial.user_attrs:
            return self._random.sample_relative(study, trial, search_space)
        allocation: Allocation = MemberSpec.parse(trial.user_attrs[MEMBER]).allocation
        return {part: allocation.get(part) for part in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Any other parameter, at random."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """End `Study.optimize` after the final run."""
        told = copy.copy(trial)  # the study learns of its end after this
        told.state, told.values = state, values
        if trial.user_attrs.get(IS_FINAL):
            is_over = state is not TrialState.FAIL
        else:
            is_over = self._needs_no_final(runs(study, told))
        if is_over:
            with contextlib.suppress(RuntimeError):  # asked and told: there is no loop to end
                study.stop()


class MarsPruner(BasePruner):
    """Prunes a trial once it has reported as many examples as the strategy asked for; never the final run."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:  # noqa: ARG002
        """Whether the strategy has seen enough of the trial."""
        if MEMBER not in trial.user_attrs or trial.user_attrs.get(IS_FINAL) or trial.last_step is None:
            return False
        return trial.last_step >= MemberSpec.parse(trial.user_attrs[MEMBER]).until_examples


def runs(study: Study, told: FrozenTrial | None = None) -> list[Run]:
    """What the trials have shown of every run before the final one; a run that was continued has several trials.

    ``told`` stands for the trial of its number.
    """
    return [
        _run([told if told and trial.number == told.number else trial for trial in mine])
        for trials in _trials_of(study).values()
        if (mine := [trial for trial in trials if not trial.user_attrs.get(IS_FINAL)])
    ]


def _trials_of(study: Study) -> dict[str, list[FrozenTrial]]:
    """The trials of every member, in order."""
    found: dict[str, list[FrozenTrial]] = defaultdict(list)
    for trial in study.get_trials(deepcopy=False):
        if MEMBER in trial.user_attrs:
            found[trial.user_attrs[MEMBER]["id"]].append(trial)
    return found


def _is_finishing(study: Study) -> bool:
    return any(
        trial.user_attrs.get(IS_FINAL) for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    )


def _run(trials: Sequence[FrozenTrial]) -> Run:
    points: dict[int, float] = {}
    for trial in trials:
        points.update(trial.intermediate_values)
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            points.setdefault(int(trial.user_attrs[MEMBER]["until_examples"]), trial.value)
    state = trials[-1].state
    examples = sorted(points)
    return Run(
        member=MemberSpec.parse(trials[-1].user_attrs[MEMBER]),
        status="failed" if state is TrialState.FAIL else "complete" if state.is_finished() else "running",
        examples=tuple(examples),
        validation_loss=tuple(points[t] for t in examples),
        cost=Cost(examples=examples[-1] if examples else 0),
    )
