"""Several writes of an Optuna storage as one transaction: each commit waits for the disk or the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from optuna.storages import RDBStorage


@contextmanager
def write_together(storage: RDBStorage) -> Iterator[None]:
    """What this thread writes to ``storage`` in the block is committed at its end, or not at all if it raises.

    Sessions then join the transaction of one connection ("Joining a Session into an External Transaction" in the manual
    of SQLAlchemy), and what they commit is part of it.
    """
    sessions = storage.scoped_session
    with storage.engine.begin() as connection:
        sessions.remove()
        sessions.configure(bind=connection, join_transaction_mode="rollback_only")
        try:
            yield
        finally:
            sessions.remove()
            sessions.configure(bind=storage.engine, join_transaction_mode="conditional_savepoint")
