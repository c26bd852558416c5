"""Several writes of an Optuna storage as one transaction: each commit waits for the disk or the network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialIntermediateValueModel, TrialUserAttributeModel
from sqlalchemy import Connection, Table, bindparam, delete, insert


@contextmanager
def write_together(storage: RDBStorage) -> Iterator[Connection]:
    """The connection of a transaction: what this thread writes to ``storage`` in the block is committed at its end, or
    not at all if it raises.

    Sessions then join the transaction ("Joining a Session into an External Transaction" in the manual of SQLAlchemy),
    and what they commit is part of it.
    """
    sessions = storage.scoped_session
    with storage.engine.begin() as connection:
        sessions.remove()
        sessions.configure(bind=connection, join_transaction_mode="rollback_only")
        try:
            yield connection
        finally:
            sessions.remove()
            sessions.configure(bind=storage.engine, join_transaction_mode="conditional_savepoint")


def write_losses(connection: Connection, losses: Iterable[tuple[int, int, float]]) -> None:
    """Write intermediate values of trials, each (number of a trial in the database, step, value), as Optuna would.

    Optuna looks for the trial and the step before each value, and writes it alone, which takes ten times as long.
    """
    rows = []
    for trial_id, step, value in losses:
        number, kind = TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        rows.append({"trial_id": trial_id, "step": step, "intermediate_value": number, "intermediate_value_type": kind})
    _replace(connection, TrialIntermediateValueModel.__table__, ("trial_id", "step"), rows)


def write_attributes(connection: Connection, attributes: Iterable[tuple[int, str, Any]]) -> None:
    """Write user attributes of trials, each (number of a trial in the database, key, value), as Optuna would."""
    rows = [{"trial_id": each, "key": key, "value_json": json.dumps(value)} for each, key, value in attributes]
    _replace(connection, TrialUserAttributeModel.__table__, ("trial_id", "key"), rows)


def _replace(connection: Connection, table: Table, keys: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Insert rows in the place of those with the same keys."""
    if rows:
        same = [table.c[key] == bindparam(f"old_{key}") for key in keys]
        connection.execute(delete(table).where(*same), [{f"old_{key}": row[key] for key in keys} for row in rows])
        connection.execute(insert(table), rows)
