"""SQLite that does not wait for the disk at every commit: no test cuts the power."""

import functools

import pytest
from alembic.util import pyfiles
from sqlalchemy import Engine, event

_load = functools.cache(pyfiles.load_module_py)


@pytest.fixture(autouse=True, scope="module")
def quick_sqlite():
    """Import it into a module of tests that keep studies. Optuna's migrations, too, are read once a process."""

    def connected(connection, _record):
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", connected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyfiles, "load_module_py", _load)
        yield
    event.remove(Engine, "connect", connected)
