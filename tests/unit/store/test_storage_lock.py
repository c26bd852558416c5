"""The lock in a database: one owner, taken over only from one that is gone."""

import json
import threading
import time

import pytest
from sqlalchemy import create_engine, update

from marslora.core.errors import StudyError
from marslora.store import storage_lock
from marslora.store.storage_lock import LOCKS, StorageLock


@pytest.fixture
def engine(tmp_path, monkeypatch):
    for name, seconds in (("BEAT_SECONDS", 0.02), ("POLL_SECONDS", 0.05), ("LEASE_SECONDS", 0.3)):
        monkeypatch.setattr(storage_lock, name, seconds)
    engine = create_engine(f"sqlite:///{tmp_path / 'locks.db'}")
    yield engine
    engine.dispose()


def change_owner(engine, **changes):
    """Stop the beats of the first owner and describe it differently."""
    lock = StorageLock(engine, "study")
    lock.take()
    lock._released.set()
    with engine.begin() as connection:
        owner = json.dumps({**json.loads(lock._owner), **changes})
        connection.execute(update(LOCKS).values(owner=owner))
    lock._owner = owner
    return lock


def test_one_process_at_a_time(engine):
    first, second = StorageLock(engine, "study"), StorageLock(engine, "study")
    first.take()
    StorageLock(engine, "another study").take()
    with pytest.raises(StudyError, match="in the same storage"):
        second.take()
    first.release()
    second.take()
    second.release()


@pytest.mark.parametrize("changes", [{"pid": 2**22 + 1}, {"started": 1.0}])
def test_a_process_that_is_gone_is_replaced_at_once(engine, changes):
    change_owner(engine, **changes)
    before = time.monotonic()
    lock = StorageLock(engine, "study")
    lock.take()
    assert time.monotonic() - before < storage_lock.LEASE_SECONDS
    lock.release()


def test_a_clock_that_was_set_is_no_other_process(engine):
    held = change_owner(engine)
    change = json.loads(held._owner)
    with engine.begin() as connection:
        connection.execute(update(LOCKS).values(owner=json.dumps({**change, "started": change["started"] + 1.0})))
    with pytest.raises(StudyError, match="in the same storage"):
        StorageLock(engine, "study").take()


def test_another_machine_is_replaced_when_it_is_silent(engine):
    change_owner(engine, host="elsewhere", pid=1)
    before = time.monotonic()
    StorageLock(engine, "study").take()
    assert time.monotonic() - before >= storage_lock.LEASE_SECONDS


def test_another_machine_that_is_alive_is_named(engine):
    alive = change_owner(engine, host="elsewhere", pid=7)
    alive._released = threading.Event()
    threading.Thread(target=alive._beat, daemon=True).start()
    with pytest.raises(StudyError, match="the process 7 on elsewhere is working"):
        StorageLock(engine, "study").take()
    alive.release()


def test_of_two_that_take_over_one_succeeds(engine):
    gone = change_owner(engine, host="elsewhere")
    one, two = StorageLock(engine, "study"), StorageLock(engine, "study")
    found = one._read()
    assert found == two._read() and found[0] == gone._owner
    one._replace(*found)
    two._replace(*found)
    assert one._insert() and not two._insert()
