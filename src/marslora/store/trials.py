"""Store runs as Optuna trials, in any Optuna storage; `optuna-dashboard` shows them.

A member that is continued gets another trial, so a run consists of all trials of one member, one after the other. A
trial is *void*, and no run has it, if what it holds is another member's: its parameters are not those of its member, or
its losses are not those of the member's checkpoint. The runs of void and of failed trials are trained again; those that
have a checkpoint report what is in it.

So that dashboards compare only what can be compared, a calibration trial is complete if it is a full run, on all rows,
of ranks that may be chosen; all others end as pruned. The final run and its baseline are trials without a member: they
are shown, and no run has them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import Any, Concatenate, ParamSpec, TypeVar

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from marslora.core.allocation import Space
from marslora.core.errors import MarsloraError
from marslora.core.runs import FinalResult, MemberResult, Observation, Run
from marslora.core.setting import Setting
from marslora.core.spec import MemberSpec
from marslora.store.checkpoints import contradicts_checkpoint
from marslora.store.storage_errors import explain_storage_error
from marslora.store.storage_lock import StorageLock
from marslora.store.storage_url import add_driver, is_absent
from marslora.store.transactions import write_together
from marslora.store.trial_records import (
    MEMBER,
    PURPOSE,
    RESULT,
    SERIES,
    TRAIN_LOSS,
    OpenTrial,
    assemble_run,
    find_state,
    make_trial,
    read_train_losses,
    write_open_losses,
)

VALIDATION_LOSS = "validation_loss"
"""The metric that is reported to Optuna as intermediate values of a trial."""
RATE = FloatDistribution(1e-9, 1.0, log=True)
"""Optuna's distribution of learning rates, for the axes of the dashboard: whatever a member trains with is stored."""


WAIT_SECONDS = 0.5
"""How long a loss may wait to be written with others. What waits when a process is killed is in the checkpoints."""

P = ParamSpec("P")
T = TypeVar("T")


def _explain_errors(method: Callable[Concatenate[Trials, P], T]) -> Callable[Concatenate[Trials, P], T]:
    """The method with errors of the database as one sentence."""

    @wraps(method)
    def call(trials: Trials, /, *args: P.args, **more: P.kwargs) -> T:
        try:
            return method(trials, *args, **more)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise explain_storage_error(trials.url, error) from error

    return call


class Trials:
    """The trials of one study. Only the process that holds the study's lock writes.

    Runs that are registered together are one write of the database, and the end of a run is one. A loss is one if none
    was written in the last `WAIT_SECONDS`; otherwise it waits for the next loss after them, or the end of a run.
    """

    def __init__(self, url: str, name: str, space: Space, members_folder: Path, *, writes: bool = True) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._distributions: dict[str, BaseDistribution] = {
            part: IntDistribution(0, max(space.ladder(part)[-1], 1)) for part in space.parts
        }
        self._space = space
        self._folder = members_folder
        self.url = url
        self._writes = writes
        self._lock: StorageLock | None = None
        try:
            can_open = writes or not is_absent(url)  # to read a database must not make one
            self._storage = _open_storage(url) if can_open else optuna.storages.get_storage(None)
            self._study_id = self._find_study(name)
            self._open: dict[str, OpenTrial] = {}
            self._written = -math.inf
            self._unfinished: dict[str, FrozenTrial] = {}
            self._void: set[int] = set()
            self.notes: list[str] = []
            """What was found wrong when the storage was opened, and what is done about it, for people to read."""
            if writes:
                self._lock = StorageLock(self._storage._backend.engine, name)  # type: ignore[attr-defined]
                self._lock.take()
            self._find_void()
            if writes:
                self._mend()
        except MarsloraError:
            raise
        except Exception as error:  # every database driver has its own exceptions
            raise explain_storage_error(url, error) from error

    def _find_study(self, name: str) -> int:
        """The number of the Optuna study; -1 if it does not exist and this process may not make it."""
        if self._writes:
            return optuna.create_study(
                storage=self._storage, study_name=name, load_if_exists=True, direction="minimize"
            )._study_id
        try:
            return self._storage.get_study_id_from_name(name)
        except KeyError:
            return -1

    def close(self) -> None:
        """Release the lock and close the connection to the database."""
        with suppress(SQLAlchemyError, optuna.exceptions.StorageInternalError):  # checkpoints have it
            self._write_waiting()
        if self._lock is not None:
            self._lock.release()
        self._storage.remove_session()
        if backend := getattr(self._storage, "_backend", None):
            backend.engine.dispose()  # a pool would keep the file of a deleted study open

    @_explain_errors
    def start(self, *members: MemberSpec) -> None:
        """Register members that are about to train. Unfinished trials of an earlier start are continued."""
        new = [member for member in members if member.id not in self._open]
        with self._write_together():
            for member in new:
                self._open[member.id] = self._find_unfinished(member) or OpenTrial(
                    self._create_trial(member), member, {}
                )

    def _find_unfinished(self, member: MemberSpec) -> OpenTrial | None:
        known = self._unfinished.pop(member.id, None)
        if known is None:
            return None
        if known.user_attrs[MEMBER] != member.model_dump(mode="json"):
            self._storage.set_trial_state_values(known._trial_id, TrialState.FAIL)
            return None
        opened = OpenTrial(known._trial_id, member, dict(known.intermediate_values))
        opened.series[TRAIN_LOSS] = read_train_losses(known)
        return opened

    def _create_trial(self, member: MemberSpec) -> int:
        attributes = {MEMBER: member.model_dump(mode="json"), PURPOSE: member.purpose}
        return self._add_trial(self._parameters(member.setting), attributes)

    @_explain_errors
    def add_full_run(self, purpose: str, setting: Setting, result: FinalResult) -> None:
        """Show a full run beside the calibration, unless it is shown: the final run, or its baseline."""
        parameters = self._parameters(setting)
        for trial in self._storage.get_all_trials(self._study_id, deepcopy=False):
            if trial.user_attrs.get(PURPOSE) == purpose and trial.params == parameters:
                return
        points = dict(zip(result.examples, result.validation_curve, strict=True))
        self._add_trial(parameters, {PURPOSE: purpose}, points, result.validation_loss)

    def _add_trial(
        self,
        parameters: dict[str, Any],
        attributes: dict[str, Any],
        points: Mapping[int, float] = MappingProxyType({}),
        value: float | None = None,
    ) -> int:
        """Add a trial, which is complete if it has a value, and else has begun; its number in the storage."""
        distributions = {name: self._distributions.get(name, RATE) for name in parameters}
        template = make_trial(parameters, distributions, attributes, points, value)
        return self._storage.create_new_trial(self._study_id, template)

    @_explain_errors
    def observe(self, seen: Observation) -> None:
        """Store one observation: a validation or training loss soon, any other metric when the member finishes."""
        trial = self._open.get(seen.member)
        if trial is None:
            return
        # a resumed member reports its last points again
        if seen.metric == VALIDATION_LOSS and trial.points.get(seen.examples) != seen.value:
            trial.points[seen.examples] = trial.waiting[seen.examples] = seen.value
        elif seen.metric != VALIDATION_LOSS:
            series = trial.series[seen.metric]
            trial.has_new_training |= seen.metric == TRAIN_LOSS and series.get(seen.examples) != seen.value
            series[seen.examples] = seen.value
        if time.monotonic() - self._written >= WAIT_SECONDS:
            self._write_waiting()

    def _write_waiting(self) -> None:
        """Write the losses that wait for it."""
        waiting = [trial for trial in self._open.values() if trial.waiting or trial.has_new_training]
        if waiting:
            with self._write_together() as connection:
                write_open_losses(connection, waiting)
            self._written = time.monotonic()

    @_explain_errors
    def finish(self, result: MemberResult) -> None:
        """Close a member's trial with its status, its cost and its other series."""
        trial = self._open.pop(result.member, None)
        if trial is None:
            return
        series = {metric: sorted(points.items()) for metric, points in trial.series.items()}
        ended = {**result.model_dump(mode="json"), SERIES: series}
        with self._write_together() as connection:
            write_open_losses(connection, [trial])
            self._storage.set_trial_user_attr(trial.trial_id, RESULT, ended)  # from here on, the run has ended
            self._close_trial(trial.trial_id, trial.member, result.status, trial.points)

    @_explain_errors
    def describe(self, attributes: Mapping[str, str | int]) -> None:
        """Set attributes of the Optuna study, which `optuna-dashboard` shows."""
        known = self._storage.get_study_user_attrs(self._study_id)
        for name, value in attributes.items():
            if known.get(name) != value:
                self._storage.set_study_user_attr(self._study_id, name, value)

    def _write_together(self) -> AbstractContextManager[Connection]:
        return write_together(self._storage._backend)  # type: ignore[attr-defined]

    @_explain_errors
    def runs(self, *, with_unfinished: bool = True) -> list[Run]:
        """All runs in the order in which they first started, each assembled from the trials of its member.

        Without unfinished trials the runs are as they were when the last one that has ended did: what strategies
        decide on is the same whether or not a study was interrupted.
        """
        return [assemble_run(trials) for _, trials in self._segments(with_unfinished=with_unfinished)]

    @_explain_errors
    def series(self, metric: str) -> dict[str, list[tuple[int, float]]]:
        """``[(examples, value)]`` of every member, for a metric other than the validation loss."""
        found: dict[str, list[tuple[int, float]]] = {}
        for member, trials in self._segments():
            points: dict[int, float] = {}
            for trial in trials:
                series = trial.user_attrs.get(RESULT, {}).get(SERIES, {})
                points.update({int(examples): value for examples, value in series.get(metric, ())})
            if points:
                found[member] = sorted(points.items())
        return found

    def _segments(self, *, with_unfinished: bool = True) -> Iterator[tuple[str, list[FrozenTrial]]]:
        """(id, trials that count) of every member, in the order of their first trials, void ones included."""
        segments: dict[str, list[FrozenTrial]] = {}
        for trial in self._all_trials():
            counting = segments.setdefault(trial.user_attrs[MEMBER]["id"], [])
            counts = RESULT in trial.user_attrs or (with_unfinished and not trial.state.is_finished())
            if counts and trial._trial_id not in self._void:
                counting.append(trial)
        yield from ((member, trials) for member, trials in segments.items() if trials)

    def _all_trials(self) -> Iterator[FrozenTrial]:
        if self._study_id < 0:
            return
        self._write_waiting()
        for trial in self._storage.get_all_trials(self._study_id, deepcopy=False):
            if MEMBER in trial.user_attrs and trial.state is not TrialState.WAITING:
                yield trial

    def _find_void(self) -> None:
        """Find the trials that hold another member's values and, if this process can train them, those that failed."""
        for trial in self._all_trials():
            member = MemberSpec.parse(trial.user_attrs[MEMBER], "a trial")
            is_foreign = trial.params != self._parameters(member.setting) or contradicts_checkpoint(
                self._folder / member.id, member, trial.intermediate_values
            )
            has_failed = trial.user_attrs.get(RESULT, {}).get("status") == "failed"
            if is_foreign or (has_failed and self._writes):
                self._void.add(trial._trial_id)
            if is_foreign:
                self.notes.append(
                    f"trial {trial.number} of the storage holds values of another run than {member.id}; they are not "
                    "used, and the run is taken from its checkpoint or trained again"
                )

    def _mend(self) -> None:
        """Close what a killed process left behind, except the trials that can be continued."""
        for trial in self._storage.get_all_trials(self._study_id, deepcopy=False):
            if trial.state.is_finished():
                continue
            ended: Mapping[str, Any] = trial.user_attrs.get(RESULT, {})
            can_continue = MEMBER in trial.user_attrs and trial._trial_id not in self._void
            if ended:
                member = MemberSpec.parse(trial.user_attrs[MEMBER], "a trial")
                self._close_trial(trial._trial_id, member, ended["status"], trial.intermediate_values)
            elif can_continue and trial.state is TrialState.RUNNING:
                self._unfinished[trial.user_attrs[MEMBER]["id"]] = trial
            else:
                self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def _close_trial(self, trial_id: int, member: MemberSpec, status: str, points: Mapping[int, float]) -> None:
        study = self._storage.get_study_user_attrs(self._study_id)
        state = find_state(member, status, points, self._space, study)
        values = [points[max(points)]] if state is TrialState.COMPLETE else None
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            self._storage.set_trial_state_values(trial_id, state, values)

    def _parameters(self, setting: Setting) -> dict[str, Any]:
        """The parameters of a trial: the ranks, and the learning rates if they are searched."""
        ranks = {part: setting.allocation.get(part) for part in self._distributions}
        rates = {} if setting.learning_rate is None else {"learning_rate": setting.learning_rate}
        return {**ranks, **rates, **{f"learning_rate.{part}": r for part, r in setting.part_learning_rates}}


def _open_storage(url: str) -> optuna.storages.BaseStorage:
    """The storage at an address. A connection that broke, as when a server was started again, is made again."""
    return optuna.storages.get_storage(
        optuna.storages.RDBStorage(add_driver(url), engine_kwargs={"pool_pre_ping": True})
    )
