"""A lock inside a database: one process works on a study, whichever machine and folder it works from.

The owner is a row with its host, its process and a count that it raises every `BEAT_SECONDS`. A lock whose process is
gone on this machine is taken over at once; one of another machine if its count stands still for `LEASE_SECONDS`, which
needs no common clock.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time

from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from marslora.core.errors import StudyError
from marslora.core.process import describe_process, is_gone

BEAT_SECONDS = 10.0
"""How often the owner shows that it is alive."""
LEASE_SECONDS = 60.0
"""How long the owner may be silent: several beats, since a database may be busy."""
POLL_SECONDS = 1.0
"""How often somebody who waits looks."""
LOCKS = Table(
    "marslora_locks",
    MetaData(),
    Column("name", String(512), primary_key=True),
    Column("owner", String(512), nullable=False),
    Column("beats", Integer, nullable=False),
)


class StorageLock:
    """The lock called ``name`` in the database of ``engine``, held from `take` to `release`."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self._name = engine, name
        self._owner = json.dumps({**describe_process(), "token": secrets.token_hex(8)})
        self._released = threading.Event()

    def take(self) -> None:
        """Take the lock, if need be from an owner that is gone. Raises `StudyError` if the owner is alive."""
        with contextlib.suppress(SQLAlchemyError):  # another process may make the table at the same moment
            LOCKS.metadata.create_all(self._engine)
        silent_since, last = time.monotonic(), None
        while not self._insert():
            found = self._read()
            if found is None:  # released in between
                continue
            owner, beats = json.loads(found[0]), found[1]
            ended = is_gone(owner)
            if ended is False or (last is not None and last != found):
                raise StudyError(
                    f"the process {owner['pid']} on {owner['host']} is working on this study in the same storage. "
                    "Wait for it, or choose another storage (--storage)."
                )
            if ended or time.monotonic() - silent_since >= LEASE_SECONDS:
                self._replace(found[0], beats)
                continue
            last = found
            time.sleep(POLL_SECONDS)
        threading.Thread(target=self._beat, daemon=True).start()

    def release(self) -> None:
        """Give the lock back."""
        self._released.set()
        with contextlib.suppress(SQLAlchemyError), self._engine.begin() as connection:
            connection.execute(delete(LOCKS).where(LOCKS.c.name == self._name, LOCKS.c.owner == self._owner))

    def _insert(self) -> bool:
        """Whether the lock is ours: it was free, or it was replaced."""
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(LOCKS).values(name=self._name, owner=self._owner, beats=0))
        except IntegrityError:
            found = self._read()
            return found is not None and found[0] == self._owner
        return True

    def _read(self) -> tuple[str, int] | None:
        with self._engine.connect() as connection:
            row = connection.execute(select(LOCKS.c.owner, LOCKS.c.beats).where(LOCKS.c.name == self._name)).first()
        return None if row is None else (row[0], row[1])

    def _replace(self, owner: str, beats: int) -> None:
        """Become the owner, unless the lock has changed since it was read."""
        unchanged = (LOCKS.c.name == self._name, LOCKS.c.owner == owner, LOCKS.c.beats == beats)
        with self._engine.begin() as connection:
            connection.execute(update(LOCKS).where(*unchanged).values(owner=self._owner, beats=0))

    def _beat(self) -> None:
        mine = (LOCKS.c.name == self._name, LOCKS.c.owner == self._owner)
        while not self._released.wait(BEAT_SECONDS):
            with contextlib.suppress(SQLAlchemyError), self._engine.begin() as connection:  # busy: the next beat comes
                connection.execute(update(LOCKS).where(*mine).values(beats=LOCKS.c.beats + 1))
