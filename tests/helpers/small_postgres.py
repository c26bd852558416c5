"""A PostgreSQL on the loopback, with a password."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

PASSWORD = "s3cret-and-l0ng"


def find_programs():
    """The folder of PostgreSQL's programs: Debian keeps them off the path."""
    found = shutil.which("initdb")
    folders = [*([Path(found).parent] if found else ()), *sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    return folders[-1] if folders else None


@pytest.fixture(scope="session")
def small_postgres():
    """The address of a server's database, with the password in it."""
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    programs = find_programs()
    if programs is None:
        pytest.skip("needs PostgreSQL, e.g. Debian's package postgresql")
    folder = Path(tempfile.mkdtemp(prefix="postgres"))  # pytest's own folders are not for other users
    (folder / "password").write_text(PASSWORD)
    other_user = []
    if not os.geteuid():  # the server does not run as root
        other_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
        shutil.chown(folder / "password", "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def call(program, *words):
        command = [*other_user, str(programs / program), "--pgdata", str(folder / "data"), *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)

    call("initdb", "--username=me", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}")
    options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
    call("pg_ctl", "--wait", "--log", str(folder / "log"), "--options", options, "start")
    yield f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/postgres"
    call("pg_ctl", "--wait", "--mode=immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def storage(small_postgres):
    """The address of an empty database."""
    import psycopg

    with psycopg.connect(small_postgres, autocommit=True) as connection:
        name = f"runs{connection.execute('SELECT count(*) FROM pg_database').fetchone()[0]}"
        connection.execute(f"CREATE DATABASE {name}")
    return small_postgres.rpartition("/")[0] + f"/{name}"
