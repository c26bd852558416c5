"""Train the packs of one round and store what they report."""

from __future__ import annotations

from collections.abc import Sequence

from marslora.core.errors import StudyError, WriteError, find_error
from marslora.core.progress import Listener, ProgressBar
from marslora.core.runs import Event, Failure, MemberResult, Observation, PackResult, ProgressEvent
from marslora.core.spec import PackSpec
from marslora.executors import AbstractExecutor
from marslora.store.study import Study


def train_packs(study: Study, executor: AbstractExecutor, work: str, packs: Sequence[PackSpec], tell: Listener) -> None:
    """Run ``work`` on every pack and store its events in ``study``, where the members must be registered.

    A pack that fails for a reason that may pass is trained once more. The runs of one that fails again are marked as
    failed until the study is run again, when they are trained again. If every pack failed, or if the user has to do
    something (a full disk, a damaged checkpoint), nothing is marked and the error is raised.
    """
    bar = ProgressBar.of(packs)
    failures: list[Failure] = []

    def receive(event: Event) -> None:
        match event:
            case Observation():
                study.trials.observe(event)
            case MemberResult():
                study.trials.finish(event)
                if event.status == "diverged":
                    tell.note(f"{event.member} diverged: {event.message}")
            case ProgressEvent():
                tell.advance(bar.advance(event))
            case PackResult():
                tell.advance(bar.finish(event.pack))
            case Failure():
                failures.append(event)
                tell.note(f"Pack {event.id} failed: {event.error}: {event.message}")

    executor.run_persistently(
        work,
        packs,
        receive,
        lambda failure: tell.note(
            f"Pack {failure.id} failed and is trained once more: {failure.error}: {failure.message}"
        ),
    )
    fatal = [failure for failure in failures if find_error(failure.error) in (WriteError, StudyError)]
    if fatal or (failures and len(failures) == len(packs)):
        raise (fatal or failures)[0].to_error()
    for failure in failures:
        for member in next(pack for pack in packs if pack.id == failure.id).members:
            message = f"{failure.error}: {failure.message}"
            study.trials.finish(MemberResult(member=member.id, status="failed", examples=0, message=message))
