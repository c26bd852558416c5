"""Optuna drives your training, marslora's strategies decide: a sampler and a pruner for `optuna.create_study`.

    sampler = MarsSampler({"vision": (4, 16, 64), "language": (4, 16, 64)}, num_train=9000, full_examples=18000)
    study = optuna.create_study(sampler=sampler, pruner=MarsPruner())
    study.optimize(objective)  # ends by itself; the last trial is the final run
    print(sampler.decide(study).summary)

The objective asks `MarsSampler.suggest` what to train, reports validation losses with the examples seen as step, and
stops when the run has seen as many as it should::

    def objective(trial):
        run = sampler.suggest(trial)
        model = restore(run.resume) if run.resume is not None else fresh(run.ranks, run.seed)
        for examples, loss in train(model, until=run.examples):  # with run.learning_rate, if that is searched too
            trial.report(loss, examples)
        save(model, trial.number)
        return loss

An objective that does not use `run.examples` may ask ``trial.should_prune()`` instead: `MarsPruner` prunes a trial
once the strategy has seen enough of it. Optuna cannot continue a trial that has ended, and continuing runs is how these
searches save most. So a run is continued by a further trial with the same parameters, whose `Suggestion.resume` is the
number of the trial to continue; an objective that starts from scratch instead pays for the beginning twice. The same
works with ``study.ask()`` and ``study.tell()``: `MarsSampler.is_done` then tells when to stop, and the runs of a round
can be trained side by side.

The opposite, Optuna's samplers driving marslora's packed engine, is the strategy `optuna_sampler`.
"""

from __future__ import annotations

import contextlib
import copy
import math
import threading
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
from marslora.core.allocation import Space
from marslora.core.decision import DecisionRecord
from marslora.core.errors import ConfigError
from marslora.core.runs import Cost, Run
from marslora.core.spec import MemberSpec
from marslora.strategies import AbstractStrategy, Problem

MEMBER, IS_FINAL = "marslora.member", "marslora.is_final"
"""User attributes of a trial: the `MemberSpec` that it trains, and whether it is the final run."""


@dataclass(frozen=True)
class Suggestion:
    """What a trial should train."""

    ranks: dict[str, int]
    """The rank of every part; 0 leaves a part as it is."""
    learning_rate: float | None
    """The learning rate of all parts without one of their own; None: it is not searched, use yours."""
    part_learning_rates: dict[str, float]
    """Learning rates of single parts."""
    examples: int
    """Train until this many examples were seen, including those of the trial that is continued."""
    rows: int
    """Cycle through the first training rows, this many of them, in one order for all trials."""
    seed: int
    """Seed of the initialisation."""
    resume: int | None
    """Number of the trial whose weights and optimizer state this one continues; None for a new run."""
    is_final: bool
    """Whether this is the final run: the chosen ranks, trained to the end."""


_ASSIGNING = threading.Lock()
"""Held while a trial gets its run: threads of `optimize(n_jobs=...)` must not get the same one."""


class MarsSampler(BaseSampler):
    """Suggests the ranks and rates that a strategy of this package asks for; other parameters are drawn at random.

    Args:
        ranks: The ladder of every part.
        learning_rates: Learning rates to choose from, increasing; None: the learning rate is not searched.
        part_rate_factors: For parts whose learning rate is searched apart, the factors on that of the others.
        num_train: Number of training rows.
        full_examples: Examples seen by one full run: the unit of cost.
        batch_size: Lengths of runs are multiples of it.
        budget: Most full runs to spend before the final run; None leaves it to the strategy.
        strategy: Name of a strategy, as in `marslora.strategies`, or ``package.module:Class``.
        options: Options of the strategy.
        count_parameters: Trainable parameters of the ranks of all parts; None: the sum of the ranks stands for them.
        max_parameters: Ranks with more are not candidates.
        seed: Seed of the strategy and of the parameters that are drawn at random.
    """

    def __init__(
        self,
        ranks: Mapping[str, Sequence[int]],
        *,
        learning_rates: Sequence[float] | None = None,
        part_rate_factors: Mapping[str, Sequence[float]] | None = None,
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
        count: Callable[[Mapping[str, int]], int] = count_parameters or (lambda each: sum(each.values()))
        self._strategy = plugins.load(strategies, strategy, AbstractStrategy)(**(options or {}))
        self._problem = Problem(
            space=Space.parse({part: tuple(ladder) for part, ladder in ranks.items()}, "`ranks`"),
            num_train=num_train,
            full_examples=full_examples,
            batch_size=batch_size,
            count_parameters=lambda allocation: count(allocation.as_dict()),
            seed=seed,
            budget=budget,
            max_parameters=max_parameters,
            learning_rates=_check_rates(learning_rates or (), list(part_rate_factors or ())),
            part_rate_factors=tuple((part, tuple(each)) for part, each in (part_rate_factors or {}).items()),
        )
        self._random = RandomSampler(seed=seed)

    def suggest(self, trial: Trial) -> Suggestion:
        """What ``trial`` should train; the ranks and the learning rate become its parameters."""
        attributes = trial.study._storage.get_trial(trial._trial_id).user_attrs
        if MEMBER not in attributes:
            raise ConfigError(
                f"Trial {trial.number} has parameters that were given to it, e.g. by `enqueue_trial`: the sampler has "
                "no suggestion for it. Read `trial.params` instead."
            )
        member = MemberSpec.parse(attributes[MEMBER])
        for name, each in self._make_distributions().items():
            trial._suggest(name, each)
        before = [each for each in _group_trials(trial.study).get(member.id, ()) if each.number != trial.number]
        return Suggestion(
            ranks={part: member.allocation.get(part) for part in self._problem.space.parts},
            learning_rate=member.learning_rate,
            part_learning_rates=dict(member.part_learning_rates),
            examples=member.until_examples,
            rows=member.data_examples,
            seed=member.seed,
            resume=before[-1].number if before and before[-1].state is not TrialState.FAIL else None,
            is_final=attributes.get(IS_FINAL, False),
        )

    def decide(self, study: Study) -> DecisionRecord:
        """The choice on what the trials have shown so far, with a reason for every candidate."""
        return self._strategy.decide(self._problem, read_runs(study))

    def is_done(self, study: Study) -> bool:
        """Whether the final run has ended, or the search itself trained the chosen ranks to the end."""
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        trials = study.get_trials(deepcopy=False, states=ended)
        return any(trial.user_attrs.get(IS_FINAL) for trial in trials) or self._is_chosen_trained(read_runs(study))

    def _is_chosen_trained(self, seen: Sequence[Run]) -> bool:
        if not any(run.last_examples >= self._problem.full_examples for run in seen):
            return False
        if self._strategy.propose(self._problem, seen):
            return False
        chosen_run = self._strategy.decide(self._problem, seen).continue_run
        return any(run.member.id == chosen_run and run.last_examples >= self._problem.full_examples for run in seen)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Assign a run to the trial; `ConfigError` if there is none: the round is in training, or all is done."""
        if "fixed_params" in trial.system_attrs:
            return
        if study.direction is not StudyDirection.MINIMIZE:
            raise ConfigError(
                f"The study must minimise validation losses, found direction {study.direction.name}. Create it with "
                '`direction="minimize"`.'
            )
        with _ASSIGNING:
            self._assign(study, trial)

    def _assign(self, study: Study, trial: FrozenTrial) -> None:
        member, is_final = self._pick_member(study)
        if member is None:
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            raise ConfigError(
                "The search has ended: call `decide` for the choice."
                if self.is_done(study)
                else "Every run of this round is in training: call `study.tell` for one of them before `study.ask`."
            )
        for name, value in ((MEMBER, member.model_dump(mode="json")), (IS_FINAL, is_final)):
            trial.user_attrs[name] = value
            study._storage.set_trial_user_attr(trial._trial_id, name, value)

    def _pick_member(self, study: Study) -> tuple[MemberSpec | None, bool]:
        """What is trained next, and whether that is the final run; None if there is nothing at the moment."""
        seen = read_runs(study)
        taken = {run.member.id for run in seen if run.status == "running"}
        if wanted := self._strategy.propose(self._problem, seen):
            return next((member for member in wanted if member.id not in taken), None), False
        if self.is_done(study) or _is_final_running(study):
            return None, True
        problem, chosen = self._problem, self._strategy.decide(self._problem, seen).setting
        return problem.member(chosen, problem.num_train, problem.full_examples, "final run"), True

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """Categorical parameters: for each part its ladder and 0, the learning rate and the parts' factors on it."""
        return self._make_distributions()

    def _make_distributions(self) -> dict[str, BaseDistribution]:
        problem = self._problem
        choices: dict[str, tuple[float, ...]] = {
            part: tuple(sorted({0, *ladder})) for part, ladder in problem.space.ladders
        }
        if problem.learning_rates:
            choices["learning_rate"] = problem.learning_rates
        for part, factors in problem.part_rate_factors:
            choices[f"learning_rate_factor.{part}"] = tuple(sorted({1.0, *factors}))
        return {name: CategoricalDistribution(values) for name, values in choices.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parameters of the trial's run; at random for a trial whose parameters were given to it."""
        if MEMBER not in trial.user_attrs:
            return self._random.sample_relative(study, trial, search_space)
        member, problem = MemberSpec.parse(trial.user_attrs[MEMBER]), self._problem
        values: dict[str, Any] = {part: member.allocation.get(part) for part in problem.space.parts}
        values["learning_rate"] = member.learning_rate
        for part, factors in problem.part_rate_factors:
            rate = dict(member.part_learning_rates).get(part, member.learning_rate)
            factor = (rate or 1.0) / (member.learning_rate or 1.0)
            values[f"learning_rate_factor.{part}"] = min({1.0, *factors}, key=lambda each: abs(each - factor))
        return {name: values[name] for name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw any other parameter at random."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """End `Study.optimize` after the final run."""
        ended = copy.copy(trial)  # the study itself is updated after this call
        ended.state, ended.values = state, values
        if trial.user_attrs.get(IS_FINAL):
            is_over = state is not TrialState.FAIL
        else:
            is_over = self._is_chosen_trained(read_runs(study, ended))
        if is_over:
            with contextlib.suppress(RuntimeError):  # with ask and tell there is no loop to stop
                study.stop()


def _check_rates(rates: Sequence[float], apart: Sequence[str]) -> tuple[float, ...]:
    """The learning rates as a tuple; `ConfigError` unless they are above 0 and increase.

    ``apart``: the parts with factors on them, which need at least one.
    """
    if list(rates) != sorted(set(rates)) or any(not 0 < rate < math.inf for rate in rates):
        raise ConfigError(
            f"`learning_rates` must be above 0 and increase without repeats, found {list(rates)}. "
            "Give e.g. (5e-4, 1e-3, 2e-3)."
        )
    if apart and not rates:
        raise ConfigError(
            f"`part_rate_factors` are factors on the learning rate of all parts, so they need `learning_rates`, found "
            f"factors of {list(apart)} alone. Give at least one learning rate."
        )
    return tuple(rates)


class MarsPruner(BasePruner):
    """Prunes a trial once it has reported as many examples as the strategy asked for, but never the final run."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:  # noqa: ARG002
        """Whether the strategy has seen enough of the trial."""
        if MEMBER not in trial.user_attrs or trial.user_attrs.get(IS_FINAL) or trial.last_step is None:
            return False
        return trial.last_step >= MemberSpec.parse(trial.user_attrs[MEMBER]).until_examples


def read_runs(study: Study, current: FrozenTrial | None = None) -> list[Run]:
    """What the trials have shown of every run before the final one. A run that was continued has several trials.

    ``current`` replaces the trial with its number.
    """
    return [
        _make_run([current if current and trial.number == current.number else trial for trial in own])
        for trials in _group_trials(study).values()
        if (own := [trial for trial in trials if not trial.user_attrs.get(IS_FINAL)])
    ]


def _group_trials(study: Study) -> dict[str, list[FrozenTrial]]:
    """The trials of every member, in order."""
    by_member: dict[str, list[FrozenTrial]] = defaultdict(list)
    for trial in study.get_trials(deepcopy=False):
        if MEMBER in trial.user_attrs:
            by_member[trial.user_attrs[MEMBER]["id"]].append(trial)
    return by_member


def _is_final_running(study: Study) -> bool:
    return any(
        trial.user_attrs.get(IS_FINAL) for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    )


def _make_run(trials: Sequence[FrozenTrial]) -> Run:
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
