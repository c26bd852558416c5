"""Say what is wrong with a database in one sentence, with a way to go on and without its password."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import create_engine, make_url

from marslora.core.errors import MarsloraError, StudyError, WriteError
from marslora.core.files import write_error
from marslora.store.storage_url import SQLITE, add_driver, hide_password, hide_secrets

FULL = ("disk is full", "No space left", "could not extend file")
"""What SQLite, the system and PostgreSQL say of a full disk."""
READ_ONLY = ("readonly database", "read-only transaction")
DAMAGED = ("not a database", "malformed", "disk I/O error")
"""What SQLite says of a damaged file."""


def explain_storage_error(url: str, error: BaseException) -> MarsloraError:
    """The error to raise for what went wrong with the storage at ``url``."""
    shown, reason = hide_password(url), hide_secrets(" ".join(str(error.__cause__ or error).split())[:300], url)
    path = url.removeprefix(SQLITE)
    if _says(error, FULL):
        return write_error(Path(path), "No space left on device", full=True)
    if _says(error, READ_ONLY):
        return WriteError(f"Cannot write the storage {shown}: it is read-only. Make it writable and run again.")
    if _says(error, DAMAGED):
        return StudyError(
            f"the storage {shown} is damaged ({reason}). Move it away and run the same command again: the runs are "
            "taken from their checkpoints, and nothing is trained again."
        )
    return StudyError(
        f"the storage {shown} cannot be used ({reason}). Give the URL of a database, e.g. "
        "sqlite:///study.db or postgresql://USER@HOST/DATABASE. A password may be in PGPASSWORD; in a URL, @ is %40."
    )


def check_storage(url: str) -> None:
    """Raise the error of `explain_storage_error` if no database can be reached at ``url``."""
    try:
        if make_url(url).get_backend_name() != "sqlite":
            create_engine(add_driver(url)).connect().close()
        elif not (folder := Path(make_url(url).database or "").absolute().parent).is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
    except MarsloraError:
        raise
    except Exception as error:  # drivers are anyone's
        raise explain_storage_error(url, error) from None


def _says(error: BaseException | None, texts: tuple[str, ...]) -> bool:
    """Whether an error, or what it was caused by, says one of the texts."""
    while error is not None:
        if any(text in str(error) for text in texts):
            return True
        error = error.__cause__ or error.__context__
    return False
