"""A lease on every trial in training: one whose process is gone is given up, so that its run is trained again.

A trial names its process and, in storages that other machines may share, counts up every `BEAT_SECONDS`. A process that
is gone on this machine loses its trials at once; one of another machine if their counts stand still for
`LEASE_SECONDS`, which needs no common clock.
"""

from __future__ import annotations

import contextlib
import threading
import time

from optuna import Study
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from marslora.core.process import describe_process, is_gone
from marslora.optuna._runs import IS_LOST

PROCESS, BEATS = "marslora.process", "marslora.beats"
"""User attributes of a trial: the process that trains it, and how often that has shown since that it is alive."""
BEAT_SECONDS, LEASE_SECONDS = 20.0, 120.0
"""How often a process shows that it is alive, and how long it may be silent."""


def take_lease(study: Study, trial: FrozenTrial) -> None:
    """Name this process as the one that trains the trial, and show until the trial ends that it is alive."""
    study._storage.set_trial_user_attr(trial._trial_id, PROCESS, describe_process())
    if not isinstance(study._storage, InMemoryStorage):
        threading.Thread(target=_beat, args=(study._storage, trial._trial_id), daemon=True).start()


def _beat(storage: BaseStorage, trial_id: int) -> None:
    beats = 0
    while True:
        time.sleep(BEAT_SECONDS)
        beats += 1
        try:
            storage.set_trial_user_attr(trial_id, BEATS, beats)
        except (UpdateFinishedTrialError, KeyError):  # it has ended, or its study was deleted
            return
        except Exception:  # the storage is busy or away: the next beat comes
            continue
        finally:
            storage.remove_session()


def give_up_lost_trials(study: Study, seen: dict[int, tuple[int, float]]) -> None:
    """End the trials whose process is gone as failed, marked as lost.

    ``seen`` is kept between calls: the beats of trials of other machines, and when they were first seen.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if PROCESS in trial.user_attrs and _is_lost(trial, seen):
            with contextlib.suppress(UpdateFinishedTrialError):  # another process was quicker
                study._storage.set_trial_user_attr(trial._trial_id, IS_LOST, True)
                study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def _is_lost(trial: FrozenTrial, seen: dict[int, tuple[int, float]]) -> bool:
    ended = is_gone(trial.user_attrs[PROCESS])
    if ended is not None:
        return ended
    beats, now = trial.user_attrs.get(BEATS, 0), time.monotonic()
    if seen.get(trial.number, (None, now))[0] != beats:
        seen[trial.number] = (beats, now)
    return now - seen[trial.number][1] >= LEASE_SECONDS
