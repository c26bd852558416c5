"""A study whose runs are in PostgreSQL: killed, cut off, refused; its password is nowhere."""

import json
import logging
import shutil
import subprocess
import sys

import pytest
from tests.helpers import kill_points
from tests.helpers.cached_fits import cached_fits  # noqa: F401
from tests.helpers.small_postgres import PASSWORD, small_postgres, storage  # noqa: F401
from tests.unit.store.test_study import member, observe, spec
from tests.unit.test_kill_points import differences, fakes, outcome, start  # noqa: F401

from marslora.core.errors import StudyError
from marslora.core.runs import Cost, MemberResult
from marslora.store.study import Study

pytestmark = pytest.mark.slow
SAMPLE = 12
"""Kill points, at even distances."""


def test_runs_come_back_as_they_were(tmp_path, storage):  # noqa: F811
    with Study.create(tmp_path, spec(), storage) as study:
        study.trials.start(member())
        observe(study, "joint", (0, 2.0), (32, float("inf")))
        study.trials.finish(MemberResult(member="joint", status="diverged", examples=32, cost=Cost(seconds=1 / 3)))
        runs = study.runs()
    with Study.open(tmp_path, storage) as study:
        assert study.runs() == runs
        assert (runs[0].validation_loss, runs[0].cost.seconds) == ((2.0, float("inf")), 1 / 3)


def test_a_study_that_is_killed_ends_as_if_it_had_not_been(tmp_path, storage, small_postgres):  # noqa: F811
    folder = tmp_path / "study"
    with kill_points.count_durable_operations() as operations:
        start(folder, "mars", storage)
    whole = outcome(folder, storage)
    for fatal in range(0, len(operations), len(operations) // SAMPLE):
        shutil.rmtree(folder)
        forget(storage)
        assert kill_points.run_in_child(lambda: start(folder, "mars", storage), fatal) == kill_points.KILLED
        assert kill_points.run_in_child(lambda: start(folder, "mars", storage)) == 0
        assert not list(differences(outcome(folder, storage), whole)), operations[fatal]


def forget(url):
    """Empty the database."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")


def test_a_connection_that_broke_is_made_again(tmp_path, storage, small_postgres):  # noqa: F811
    import psycopg

    with Study.create(tmp_path, spec(), storage) as study:
        study.trials.start(member())
        with psycopg.connect(small_postgres, autocommit=True) as connection:
            others = "pid <> pg_backend_pid() AND backend_type = 'client backend'"
            connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
        observe(study, "joint", (0, 2.0))
        assert study.runs()[0].validation_loss == (2.0,)


def test_two_machines_cannot_write_one_study(tmp_path, storage):  # noqa: F811
    with Study.create(tmp_path / "one", spec(), storage) as study:
        study.trials.start(member())
        with Study.create(tmp_path / "two", spec(), storage) as other, pytest.raises(StudyError, match="same storage"):
            other.trials.start(member())


@pytest.mark.parametrize("wrong", [PASSWORD + "x", "l0ng@" + PASSWORD])
def test_the_password_is_nowhere(tmp_path, storage, caplog, wrong):  # noqa: F811
    caplog.set_level(logging.DEBUG)
    with Study.create(tmp_path, spec(), storage) as study:
        study.trials.start(member())
        study.write_json("plan/round-01.json", [], "")
    with pytest.raises(StudyError) as refused:
        Study.open(tmp_path, storage.replace(PASSWORD, wrong)).runs()
    said = [str(refused.value), *(path.read_text() for path in tmp_path.rglob("*.json")), caplog.text]
    assert not [text for text in said if PASSWORD in text]
    assert "***" in str(refused.value)


def test_the_command_that_continues_has_no_password(tmp_path, storage):  # noqa: F811
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"prompt": "a", "completion": "b"}) for _ in range(2)))
    words = ["demo", "--storage", storage, "--study", str(tmp_path / "study")]
    code = "import os, signal, sys; from marslora import api, cli\n"
    code += "api.run_study = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
    code += f"sys.argv = ['marslora', *{words!r}]\ncli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 130, done.stderr
    assert "To continue:" in done.stdout and "PGPASSWORD" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr
