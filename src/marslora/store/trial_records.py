"""What a trial of Optuna holds here: how one is made, and how a run is put together from those of its member."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection

from marslora.core.allocation import Space
from marslora.core.runs import Cost, Run
from marslora.core.spec import MemberSpec
from marslora.store.transactions import write_attributes, write_losses

TRAIN_LOSS = "train_loss"
"""The metric that is kept as an attribute of a trial while it runs, so that an interrupted run has it too."""
MEMBER, RESULT, SERIES, PURPOSE = "member", "result", "series", "purpose"
"""Attributes of a trial: its `MemberSpec`, its `MemberResult`, the metrics other than the validation loss, and what it
was trained for, by which a dashboard keeps parts alone apart."""
FULL_EXAMPLES, TRAINING_ROWS = "full_examples", "training_rows"
"""Attributes of the Optuna study: the length of a full run, and the rows that it cycles through."""
ENDED_WELL = ("complete", "stopped")
"""The statuses of runs whose losses count; to Optuna any other run has failed."""


def make_trial(
    parameters: dict[str, Any],
    distributions: dict[str, BaseDistribution],
    attributes: dict[str, Any],
    points: Mapping[int, float],
    value: float | None,
) -> FrozenTrial:
    """A trial to be put into a storage: complete if it has a value, else one that has just begun.

    ``points`` are its validation losses by the examples seen.
    """
    now = datetime.now()
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
        value=value,
        datetime_start=now,
        datetime_complete=None if value is None else now,
        params=parameters,
        distributions=distributions,
        user_attrs=attributes,
        system_attrs={},
        intermediate_values=dict(points),
    )


def read_train_losses(trial: FrozenTrial) -> dict[int, float]:
    """The mean training losses of a trial by the examples at which their intervals end."""
    losses = trial.user_attrs.get(RESULT, {}).get(SERIES, {}).get(TRAIN_LOSS) or trial.user_attrs.get(TRAIN_LOSS, ())
    return {int(examples): value for examples, value in losses}


def assemble_run(trials: Sequence[FrozenTrial]) -> Run:
    """The run whose trials these are, the earliest first."""
    points: dict[int, float] = {}
    train: dict[int, float] = {}
    cost = Cost()
    for trial in trials:
        points.update(trial.intermediate_values)
        if own := read_train_losses(trial):  # a run that went on has no mean up to the point at which it had ended
            train = {t: value for t, value in train.items() if t < max(train)} | own
        cost = cost + Cost.parse(trial.user_attrs.get(RESULT, {}).get("cost", {}))
    last: Mapping[str, Any] = trials[-1].user_attrs
    examples = sorted(points)
    return Run(
        member=MemberSpec.parse(last[MEMBER]),
        status=last.get(RESULT, {}).get("status", "running"),
        examples=tuple(examples),
        validation_loss=tuple(points[e] for e in examples),
        train_examples=tuple(sorted(train)),
        train_loss=tuple(train[t] for t in sorted(train)),
        cost=cost,
    )


def find_state(
    member: MemberSpec, status: str, points: Mapping[int, float], space: Space, study: Mapping[str, Any]
) -> TrialState:
    """Optuna's state of a trial that has ended: complete for a full run of a candidate, pruned for any other run.

    ``study`` holds the attributes of the Optuna study: where the length of a full run is not among them, all are long.
    """
    if status not in ENDED_WELL or not points:
        return TrialState.FAIL
    return TrialState.COMPLETE if _is_full_run(member, max(points), space, study) else TrialState.PRUNED


def _is_full_run(member: MemberSpec, examples: int, space: Space, study: Mapping[str, Any]) -> bool:
    """Whether a run that has seen ``examples`` is a full run, on all rows, of ranks that may be chosen."""
    is_candidate = all(member.allocation.get(part) in space.ladder(part) for part in space.parts)
    is_long = examples >= study.get(FULL_EXAMPLES, 0) and member.data_examples >= study.get(TRAINING_ROWS, 0)
    return is_candidate and is_long


@dataclass
class OpenTrial:
    """A trial that this process writes to."""

    trial_id: int
    member: MemberSpec
    points: dict[int, float]
    """The validation losses that are stored or wait for it."""
    waiting: dict[int, float] = field(default_factory=dict)
    """Those of ``points`` that are not stored yet."""
    has_new_training: bool = False
    """Whether a training loss is not stored yet."""
    series: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))


def write_open_losses(connection: Connection, trials: Sequence[OpenTrial]) -> None:
    """Write the losses of open trials that wait for it."""
    write_losses(connection, [(each.trial_id, *point) for each in trials for point in each.waiting.items()])
    write_attributes(
        connection,
        [
            (each.trial_id, TRAIN_LOSS, sorted(each.series[TRAIN_LOSS].items()))
            for each in trials
            if each.has_new_training
        ],
    )
    for each in trials:
        each.waiting, each.has_new_training = {}, False
