"""Addresses of databases: nobody sees a password, whatever is wrong with the address."""

import sys

import pytest

from marslora.core.errors import MissingDependencyError
from marslora.store.storage_errors import explain_storage_error
from marslora.store.storage_url import add_driver, drop_password, hide_password

URLS = {
    "postgresql://me:s3cret@host:5432/runs": "postgresql://me:***@host:5432/runs",
    "postgresql://me:s3@cret@host/runs": "postgresql://me:***@host/runs",
    "postgresql://me:s3/cret@host/runs": "postgresql://me:***@host/runs",
    "postgresql://me:s3%40cret@host:port/runs": "postgresql://me:***@host:port/runs",
    "postgresql://host/runs?password=s3cret&sslmode=require": "postgresql://host/runs?password=***&sslmode=require",
    "postgresql://host/runs?sslpassword=s3cret": "postgresql://host/runs?sslpassword=***",
    "nonsense:s3cret@host": "host",
    "sqlite:///study.db": "sqlite:///study.db",
}


@pytest.mark.parametrize(("url", "shown"), URLS.items())
def test_passwords_are_hidden(url, shown):
    assert hide_password(url) == shown


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://me:s3@cret@host/runs", "failed to resolve host 'cret@host'"),
        ("postgresql://me:s3%40cret@host/runs", "no password s3@cret for me"),
        ("postgresql://host/runs?password=s3cret", "invalid option s3cret"),
    ],
)
def test_what_a_database_says_is_said_without_passwords(url, reason):
    said = str(explain_storage_error(url, ValueError(reason)))
    assert "***" in said and "s3" not in said and "cret" not in said


@pytest.mark.parametrize("url", [*URLS][:6])
def test_a_command_that_is_shown_has_no_password_and_can_be_used(url):
    shown = drop_password(f"--storage={url}")
    assert "s3" not in shown and "cret" not in shown
    assert shown.startswith("--storage=postgresql://") and "host" in shown


@pytest.mark.parametrize("word", ["ray:address=10.0.0.1:6379", "rows@home.jsonl", "sqlite:///a@b.db", "s3://bucket/a"])
def test_other_words_stay_as_they_are(word):
    assert drop_password(word) == word


def test_the_driver_is_that_of_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", sys)
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        assert add_driver(f"{scheme}://me@host/runs") == "postgresql+psycopg://me@host/runs"
    for url in ("postgresql+psycopg2://me@host/runs", "sqlite:///study.db"):
        assert add_driver(url) == url
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'marslora\[postgres\]'"):
        add_driver("postgresql://me@host/runs")
