"""Addresses of databases: which driver opens one, and the passwords in it, which nobody may see."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from marslora.core.optional import need

SQLITE = "sqlite:///"
"""The beginning of the address of a file."""
POSTGRESQL = re.compile(r"^(postgres|postgresql)://")
"""PostgreSQL without a driver."""
USER_PASSWORD = re.compile(r"(://[^:/@\s]*):(.*)@")
"""The password between a user's name and the host; it may hold an @ that should have been written as %40."""
OPTION_PASSWORD = re.compile(r"([?&][^=&\s]*pass[^=&\s]*=)([^&\s]*)", re.IGNORECASE)
"""A password among the options."""


def add_driver(url: str) -> str:
    """The address with the driver of the extra ``postgres`` if it is PostgreSQL without one.

    Raises `MissingDependencyError` if the driver is not installed.
    """
    url = POSTGRESQL.sub("postgresql+psycopg://", url)
    if url.startswith("postgresql+psycopg://"):
        need("psycopg", "postgres")
    return url


def hide_password(url: str) -> str:
    """An address with stars instead of its passwords; only what follows the last @ of what is no address."""
    shown = OPTION_PASSWORD.sub(r"\1***", USER_PASSWORD.sub(r"\1:***@", url))
    return shown if "://" in url else shown.rpartition("@")[2]


def drop_password(word: str) -> str:
    """A word of a command without the passwords of an address in it, which can be used where they are known."""
    return OPTION_PASSWORD.sub("", USER_PASSWORD.sub(r"\1@", word))


def hide_secrets(text: str, url: str) -> str:
    """A text about the database at ``url`` with stars instead of whatever belongs to a password there."""
    found = [match.group(2) for pattern in (USER_PASSWORD, OPTION_PASSWORD) for match in pattern.finditer(url)]
    pieces = {form for secret in found for piece in (secret, *secret.split("@")) for form in (piece, unquote(piece))}
    for piece in sorted(filter(None, pieces), key=len, reverse=True):
        text = text.replace(piece, "***")
    return text


def is_absent(url: str) -> bool:
    """Whether the address is that of an SQLite file that does not exist."""
    path = url.removeprefix(SQLITE)
    return path != url and "?" not in path and not Path(path).exists()
