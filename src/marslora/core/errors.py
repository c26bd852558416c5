"""The errors that a user can fix. A message names the argument, file or row, what was expected and found, and the fix.

Every error can be pickled, because it may cross processes, and also inherits the standard error that it replaces.
The command line prints ``str(error)`` on one line and exits with `EXIT_CODE`.
"""

EXIT_CODE = 2
"""What the command line exits with after a `MarsloraError`; the convention for wrong usage."""
EXIT_UNSETTLED = 3
"""What it exits with if the work was done but its result is not to be relied on: what it printed says why."""


class MarsloraError(Exception):
    """The base class of every error that a user can fix."""


class ConfigError(MarsloraError, ValueError):
    """An argument or a configuration field is wrong."""


class ModelError(MarsloraError, ValueError):
    """A model cannot be loaded, or its parts cannot be found."""


class DataError(MarsloraError, ValueError):
    """A data file or one of its rows cannot be used."""


class StudyError(MarsloraError, RuntimeError):
    """A study folder is damaged, locked, or belongs to another spec."""


class WriteError(MarsloraError, OSError):
    """A file or folder cannot be written, e.g. because the disk is full."""


class TrainingError(MarsloraError, RuntimeError):
    """A training run cannot continue, e.g. because its loss became NaN."""


class OutOfMemoryError(MarsloraError, RuntimeError):
    """Memory ran out, though nothing else was trained at the same time; it says what takes less."""


class WorkerDiedError(MarsloraError, RuntimeError):
    """A worker process ended before it had a result, e.g. because it was killed."""


class MissingDependencyError(MarsloraError, ImportError):
    """An optional package is needed that is not installed."""


def find_error(name: str) -> type[MarsloraError] | None:
    """The error class of this module that is called ``name``; None if there is none."""
    kind = globals().get(name)
    return kind if isinstance(kind, type) and issubclass(kind, MarsloraError) else None


def rebuild_error(name: str, message: str) -> MarsloraError:
    """Rebuild an error that was raised in another process or earlier: of the class called ``name``, with ``message``.

    If this module has no such class, the result is a `StudyError` whose message begins with the name.
    """
    kind = find_error(name)
    return kind(message) if kind else StudyError(f"{name}: {message}")
