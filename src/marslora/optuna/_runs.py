"""The runs of a strategy, as the trials of an Optuna study have shown them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from marslora.core.runs import Cost, Run
from marslora.core.spec import MemberSpec

MEMBER, IS_FINAL, IS_LOST = "marslora.member", "marslora.is_final", "marslora.is_lost"
"""User attributes of a trial: the `MemberSpec` that it trains, whether it is the final run, whether its process ended
before it did."""


def read_runs(study: Study, current: FrozenTrial | None = None) -> list[Run]:
    """What the trials have shown of every run before the final one. A run that was continued has several trials.

    ``current`` replaces the trial with its number. What lost trials and the first failed one of a run have shown does
    not count: the run is asked for again.
    """
    trials_of = group_trials(study, current)
    return [
        _make_run(own)
        for trials in trials_of.values()
        if (own := _leave_out_first_failed([each for each in trials if not each.user_attrs.get(IS_FINAL)]))
    ]


def group_trials(study: Study, current: FrozenTrial | None = None) -> dict[str, list[FrozenTrial]]:
    """The trials of every member, in order, without those that were lost; ``current`` replaces that of its number."""
    by_member: dict[str, list[FrozenTrial]] = defaultdict(list)
    for each in study.get_trials(deepcopy=False):
        trial = current if current is not None and current.number == each.number else each
        if trial.user_attrs.get(MEMBER) and not trial.user_attrs.get(IS_LOST):
            by_member[trial.user_attrs[MEMBER]["id"]].append(trial)
    return by_member


def _leave_out_first_failed(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    failed = next((trial for trial in trials if trial.state is TrialState.FAIL), None)
    return [trial for trial in trials if trial is not failed]


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
