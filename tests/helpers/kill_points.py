"""Kill a process at its k-th durable operation: a rename, a removed file, a commit or a new table of a database."""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import Engine, event

from marslora.core.files import write_text
from marslora.core.runs import Cost, MemberResult, Observation, PackResult
from tests.helpers import fake_training

KILLED = 77
"""Exit code of a process that was killed where it should be."""
CALLS = ("replace", "rename", "unlink", "remove")


@contextlib.contextmanager
def count_durable_operations(fatal: int | None = None) -> Iterator[list[str]]:
    """The durable operations of this thread in the block, as they happen; before the ``fatal``-th, counted from 0, the
    process ends at once, as if it had been killed.

    The beats of the storage's lock, which another thread writes by the clock, are not counted: the k-th operation is
    the same one in every run, however long it takes.
    """
    seen: list[str] = []
    counted = threading.get_ident()

    def count(name: str) -> None:
        if threading.get_ident() != counted:
            return
        if len(seen) == fatal:
            os._exit(KILLED)
        seen.append(name)

    def watch(name: str) -> Callable[..., object]:
        plain = getattr(os, name)

        def call(*args: object, **more: object) -> object:
            count(f"{name} {args[0]}")
            return plain(*args, **more)

        return call

    def commit(_connection: object) -> None:
        count("commit")

    def execute(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().upper().startswith(("CREATE", "ALTER", "DROP")):
            count(" ".join(statement.split()[:3]))

    plain = {name: getattr(os, name) for name in CALLS}
    for name in CALLS:
        setattr(os, name, watch(name))
    event.listen(Engine, "commit", commit)
    event.listen(Engine, "before_cursor_execute", execute)
    try:
        yield seen
    finally:
        event.remove(Engine, "commit", commit)
        event.remove(Engine, "before_cursor_execute", execute)
        for name, function in plain.items():
            setattr(os, name, function)


def run_in_child(work: Callable[[], object], fatal: int | None = None) -> int:
    """Do ``work`` in a copy of this process, to be killed before its ``fatal``-th durable operation; the exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        with count_durable_operations(fatal):
            work()
        code = 0
    finally:
        os._exit(code)


def run_pack(spec, emit):
    """Train like `fake_training.run_pack`, with a checkpoint after every second point, from which a member goes on."""
    for member in spec.members:
        path = Path(spec.checkpoint_folder, member.id, "state.json")
        state = json.loads(path.read_text()) if path.exists() else {"points": []}
        for examples, metric, value in state["points"]:
            emit(Observation(member=member.id, examples=examples, metric=metric, value=value))
        _go_on(member, state["points"], path, emit)
        cost = Cost(seconds=0.1, examples=member.until_examples, flops=1e6 * member.until_examples)
        emit(MemberResult(member=member.id, status="complete", examples=member.until_examples, cost=cost))
    emit(PackResult(pack=spec.id, members=(), cost=Cost()))


def _go_on(member, points, path, emit):
    seen = max((examples for examples, *_ in points), default=-1)
    grid = [0, *(2**n for n in range(4, 20) if 2**n < member.until_examples), member.until_examples]
    for number, examples in enumerate(grid):
        if examples <= seen:
            continue
        loss = fake_training.loss(member.allocation, examples, member.seed)
        for metric, value in (("validation_loss", loss), ("train_loss", loss + 0.5)):
            emit(Observation(member=member.id, examples=examples, metric=metric, value=value))
            points.append((examples, metric, value))
        if number % 2 or examples == member.until_examples:
            write_text(path, json.dumps({"spec": member.model_dump(mode="json"), "points": points}))
