"""A training wing like `fake_training` that fails: once, always, by a signal, or because the disk is full."""

import os
import signal
import time
from pathlib import Path

from marslora.core.errors import WriteError
from marslora.core.runs import Cost, Failure, FinalResult, MemberResult, PackResult, ProgressEvent
from marslora.core.stopping import defer_signals
from tests.helpers import fake_training


def is_first_call(spec):
    """Whether a pack is trained for the first time; a file beside its checkpoints remembers."""
    path = Path(spec.checkpoint_folder).parent / f"called-{spec.id}"
    is_first = not path.exists()
    path.touch()
    return is_first


def is_victim(pack):
    return not all(member.allocation["vision"] for member in pack.members)


def fail_once(pack, emit):
    if is_victim(pack) and is_first_call(pack):
        fake_training.run_pack(pack, lambda event: emit(event) if not isinstance(event, MemberResult) else None)
        emit(Failure(id=pack.id, error="OutOfMemoryError", message="no room"))
    else:
        fake_training.run_pack(pack, emit)


def be_killed_once(pack, emit):
    if is_victim(pack) and is_first_call(pack):
        os.kill(os.getpid(), signal.SIGKILL)
    fake_training.run_pack(pack, emit)


def fail_always(pack, emit):
    if is_victim(pack):
        emit(Failure(id=pack.id, error="OutOfMemoryError", message="no room"))
    else:
        fake_training.run_pack(pack, emit)


def find_no_space(pack, emit):
    if is_victim(pack):
        emit(Failure.of(pack, WriteError("Cannot write members: No space left on device. Free some space.")))
    else:
        fake_training.run_pack(pack, emit)


def diverge(pack, emit):
    for member in pack.members:
        emit(MemberResult(member=member.id, status="diverged", examples=16, message="the loss became NaN"))
    emit(PackResult(pack=pack.id, members=(), cost=Cost()))


def answer_second(spec, emit):
    path = Path(spec.output_folder, "called")
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    emit(FinalResult.model_construct(id=spec.output_folder))


def never_answer(spec, emit):
    os.kill(os.getpid(), signal.SIGKILL)


def refuse_once(spec, emit):
    path = Path(spec.output_folder, "refused")
    assert not path.exists(), "a user's error is not tried again"
    path.touch()
    emit(Failure(id=spec.id, error="DataError", message="once"))


def train_until_stopped(spec, emit):
    """Train on and on; when a signal comes, end the step and write a checkpoint."""
    with defer_signals() as stop:
        Path(spec.output_folder, f"pid-{os.getpid()}").touch()
        emit(ProgressEvent(task="t", done=0, total=1))
        while not stop:
            time.sleep(0.01)
        Path(spec.output_folder, "checkpoint").touch()
    stop.raise_if_asked()


def ignore_signals(spec, emit):
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    emit(ProgressEvent(task="t", done=0, total=1))
    time.sleep(600)
