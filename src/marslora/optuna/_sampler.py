"""A sampler whose trials train what a strategy asks for."""

from __future__ import annotations

import contextlib
import copy
import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna import Study, Trial, TrialPruned
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from marslora import strategies
from marslora.core import plugins
from marslora.core.allocation import Space
from marslora.core.decision import DecisionRecord
from marslora.core.errors import ConfigError
from marslora.core.runs import Run
from marslora.core.spec import MemberSpec
from marslora.optuna._lease import give_up_lost_trials, take_lease
from marslora.optuna._runs import IS_FINAL, IS_LOST, MEMBER, group_trials, read_runs
from marslora.optuna._suggestion import Suggestion
from marslora.strategies import AbstractStrategy, Problem

_ASSIGNING = threading.Lock()
"""Held while a trial gets its run: threads of `optimize(n_jobs=...)` must not get the same one."""
POLL_SECONDS = 0.2
"""How often a thread that waits for the others of its round looks at the study."""


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
        self._seen_beats: dict[int, tuple[int, float]] = {}

    def suggest(self, trial: Trial) -> Suggestion:
        """What ``trial`` should train; the ranks and the learning rate become its parameters.

        Raises `optuna.TrialPruned` in a trial of `optimize` for which nothing was left.
        """
        found = trial.study._storage.get_trial(trial._trial_id)
        attributes = found.user_attrs
        if not attributes.get(MEMBER) and "fixed_params" not in found.system_attrs:
            raise TrialPruned("The search ended while this trial waited for others.")
        if not attributes.get(MEMBER):
            raise ConfigError(
                f"Trial {trial.number} has parameters that were given to it, e.g. by `enqueue_trial`: the sampler has "
                "no suggestion for it. Read `trial.params` instead."
            )
        member = MemberSpec.parse(attributes[MEMBER])
        for name, each in self._make_distributions().items():
            trial._suggest(name, each)
        others = (each for each in group_trials(trial.study).get(member.id, ()) if each.number != trial.number)
        before = [each for each in others if each.state is not TrialState.FAIL]
        return Suggestion(
            ranks={part: member.allocation.get(part) for part in self._problem.space.parts},
            learning_rate=member.learning_rate,
            part_learning_rates=dict(member.part_learning_rates),
            examples=member.until_examples,
            rows=member.data_examples,
            seed=member.seed,
            resume=before[-1].number if before else None,
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
        """Assign a run to the trial. Within `Study.optimize` this waits while the rest of the round is in training, and
        leaves the trial without a run once all is done; elsewhere it raises `ConfigError` in both cases."""
        if "fixed_params" in trial.system_attrs:
            return
        if study.direction is not StudyDirection.MINIMIZE:
            raise ConfigError(
                f"The study must minimise validation losses, found direction {study.direction.name}. Create it with "
                '`direction="minimize"`.'
            )
        take_lease(study, trial)
        looked_at, is_told = None, False
        while True:
            with _ASSIGNING:
                give_up_lost_trials(study, self._seen_beats)
                state = _list_states(study, trial)
                if state != looked_at and self._assign(study, trial):
                    return
            looked_at = state
            if self._is_left_without(study, trial):
                return
            if not is_told:
                optuna.logging.get_logger("optuna.marslora").info(
                    f"Trial {trial.number} waits for those in training: {_list_running(study, trial)}. To give one up: "
                    "`study.tell(NUMBER, state=optuna.trial.TrialState.FAIL)`."
                )
            is_told = True
            time.sleep(POLL_SECONDS)

    def _is_left_without(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether nothing is left to train in the loop of `optimize`. Elsewhere, `ConfigError`."""
        is_done = self.is_done(study)
        if study._thread_local.in_optimize_loop:
            if is_done:
                study.stop()
            return is_done or study._stop_flag
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        if is_done:
            raise ConfigError("The search has ended: call `decide` for the choice.")
        raise ConfigError(
            f"Every run of this round is in training, in the trials {_list_running(study, trial)}: call `study.tell` "
            "for one of them before `study.ask`."
        )

    def _assign(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial got a run that no other has."""
        while True:
            known = {(each.number, member) for member, own in group_trials(study).items() for each in own}
            member, is_final = self._pick_member(study)
            if member is None:
                return False
            for name, value in ((MEMBER, member.model_dump(mode="json")), (IS_FINAL, is_final)):
                trial.user_attrs[name] = value
                study._storage.set_trial_user_attr(trial._trial_id, name, value)
            if not _is_taken(study, trial, known):
                return True
            for name in (MEMBER, IS_FINAL):  # another process took it at the same moment
                trial.user_attrs.pop(name)
                study._storage.set_trial_user_attr(trial._trial_id, name, None)
            time.sleep(random.uniform(0, 2 * POLL_SECONDS))

    def _pick_member(self, study: Study) -> tuple[MemberSpec | None, bool]:
        """What is trained next, and whether that is the final run; None if there is nothing at the moment."""
        seen = read_runs(study)
        taken = {run.member.id for run in seen if run.status == "running"}
        if wanted := self._strategy.propose(self._problem, seen):
            return next((member for member in wanted if member.id not in taken), None), False
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if self.is_done(study) or any(trial.user_attrs.get(IS_FINAL) for trial in running):
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
        if not trial.user_attrs.get(MEMBER):
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
        """End `Study.optimize` after the final run, also if it failed twice."""
        ended = copy.copy(trial)  # the study itself is updated after this call
        ended.state, ended.values = state, values
        if trial.user_attrs.get(IS_FINAL):
            is_over = state is not TrialState.FAIL or _count_failed_finals(study) > 0
        else:
            is_over = self._is_chosen_trained(read_runs(study, ended))
        if is_over:
            with contextlib.suppress(RuntimeError):  # with ask and tell there is no loop to stop
                study.stop()


def _list_states(study: Study, trial: FrozenTrial) -> list[tuple[int, TrialState, bool]]:
    """What all trials but this one are doing."""
    others = (each for each in study.get_trials(deepcopy=False) if each.number != trial.number)
    return [(each.number, each.state, bool(each.user_attrs.get(MEMBER))) for each in others]


def _list_running(study: Study, trial: FrozenTrial) -> list[int]:
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [each.number for each in running if each.user_attrs.get(MEMBER) and each.number != trial.number]


def _is_taken(study: Study, trial: FrozenTrial, known: set[tuple[int, str]]) -> bool:
    """Whether another trial trains the run of this one, or has trained it since ``known`` was true: the trials with
    the members that they train."""
    member = trial.user_attrs[MEMBER]["id"]
    others = (each for each in group_trials(study)[member] if each.number != trial.number)
    return any(each.state is TrialState.RUNNING or (each.number, member) not in known for each in others)


def _count_failed_finals(study: Study) -> int:
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return sum(bool(each.user_attrs.get(IS_FINAL)) and not each.user_attrs.get(IS_LOST) for each in failed)


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
