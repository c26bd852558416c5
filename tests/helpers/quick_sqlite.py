"""SQLite that does not wait for the disk at every commit: no test cuts the power."""

import pytest
from sqlalchemy import Engine, event


@pytest.fixture(autouse=True, scope="module")
def quick_sqlite():
    """Import it into a module of tests that keep studies."""

    def connected(connection, _record):
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", connected)
    yield
    event.remove(Engine, "connect", connected)
