"""Runs as Optuna trials: `optuna-dashboard` shows them, and any Optuna storage holds them.

A member that is continued gets another trial, so a run consists of all trials of one member, one after the other.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from marslora.core.allocation import Space
from marslora.core.errors import StudyError
from marslora.core.runs import Cost, MemberResult, Observation, Run
from marslora.core.spec import MemberSpec

VALIDATION_LOSS = "validation_loss"
"""The metric that is reported to Optuna as the intermediate value of a trial."""
STATES = {"complete": TrialState.COMPLETE, "stopped": TrialState.COMPLETE}
"""Optuna's states of our statuses; every other status is a failure."""


class Trials:
    """The trials of one study. Only the process that holds the study's lock writes."""

    def __init__(self, url: str, name: str, space: Space) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self._storage = optuna.storages.get_storage(url)
            self._study = optuna.create_study(
                storage=self._storage, study_name=name, load_if_exists=True, direction="minimize"
            )
        except Exception as error:  # every database driver has its own exceptions
            raise StudyError(
                f"cannot open the storage {url} ({error}). Give a URL that Optuna can open, e.g. sqlite:///study.db."
            ) from error
        self._distributions: dict[str, BaseDistribution] = {
            part: IntDistribution(0, max(space.ladder(part)[-1], 1)) for part in space.parts
        }
        self._open: dict[str, optuna.Trial] = {}
        self._series: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))

    def close(self) -> None:
        """Close the connection to the database."""
        self._storage.remove_session()

    def start(self, member: MemberSpec) -> None:
        """Register a member that is about to train. The open trial of an interrupted start is continued."""
        if member.id in self._open:
            return
        trial_id = self._find_open_trial(member)
        if trial_id is None:
            ranks = {part: member.allocation.get(part) for part in self._distributions}
            self._study.enqueue_trial(ranks, user_attrs={"member": member.model_dump(mode="json")})
            self._open[member.id] = self._study.ask(self._distributions)
        else:
            self._open[member.id] = optuna.Trial(self._study, trial_id)

    def observe(self, seen: Observation) -> None:
        """Store one observation: a validation loss at once, any other metric when the member finishes."""
        trial = self._open.get(seen.member)
        if trial is None:
            return
        if seen.metric != VALIDATION_LOSS:
            self._series[seen.member][seen.metric][seen.examples] = seen.value
            return
        with warnings.catch_warnings():  # Optuna warns because a resumed member reports its last points again
            warnings.simplefilter("ignore")
            trial.report(seen.value, seen.examples)

    def finish(self, result: MemberResult) -> None:
        """Close a member's trial with its status, its cost and its other series."""
        trial = self._open.pop(result.member, None)
        if trial is None:
            return
        for metric, points in self._series.pop(result.member, {}).items():
            trial.set_user_attr(metric, sorted(points.items()))
        trial.set_user_attr("status", result.status)
        trial.set_user_attr("cost", result.cost.model_dump(mode="json"))
        if result.message:
            trial.set_user_attr("message", result.message)
        values = self._storage.get_trial(trial._trial_id).intermediate_values
        state = STATES.get(result.status, TrialState.FAIL)
        if state is TrialState.COMPLETE and values:
            self._study.tell(trial, values[max(values)])
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def runs(self) -> list[Run]:
        """All runs, each assembled from the trials of its member."""
        segments: dict[str, list[FrozenTrial]] = defaultdict(list)
        for trial in self._study.get_trials(deepcopy=False):
            if "member" in trial.user_attrs:
                segments[trial.user_attrs["member"]["id"]].append(trial)
        return [_assemble_run(trials) for trials in segments.values()]

    def series(self, metric: str) -> dict[str, list[tuple[int, float]]]:
        """``[(examples, value)]`` of every member, for a metric other than the validation loss."""
        points: dict[str, dict[int, float]] = defaultdict(dict)
        for trial in self._study.get_trials(deepcopy=False):
            if "member" in trial.user_attrs and metric in trial.user_attrs:
                member = trial.user_attrs["member"]["id"]
                points[member].update({int(examples): value for examples, value in trial.user_attrs[metric]})
        return {member: sorted(values.items()) for member, values in points.items()}

    def _find_open_trial(self, member: MemberSpec) -> int | None:
        wanted = member.model_dump(mode="json")
        for trial in self._study.get_trials(deepcopy=False):
            if not trial.state.is_finished() and trial.user_attrs.get("member") == wanted:
                return trial._trial_id
        return None


def _assemble_run(trials: Sequence[FrozenTrial]) -> Run:
    points: dict[int, float] = {}
    cost = Cost()
    for trial in trials:
        points.update(trial.intermediate_values)
        cost = cost + Cost.parse(trial.user_attrs.get("cost", {}))
    last: dict[str, Any] = trials[-1].user_attrs
    examples = sorted(points)
    return Run(
        member=MemberSpec.parse(last["member"]),
        status=last.get("status", "running"),
        examples=tuple(examples),
        validation_loss=tuple(points[e] for e in examples),
        cost=cost,
    )
