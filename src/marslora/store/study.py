"""A study on disk: JSON artifacts in a folder, and its runs in an Optuna storage.

The contract:

- **One writer.** `Study.create` locks the folder until the study is closed or its process ends; a second process that
  wants to write is refused. Worker processes write only below ``members/``, ``final/``, ``uniform/`` and ``cache/``,
  each run to a folder of its own. `Study.open` takes no lock: any process may read at any time.
- **Artifacts are complete.** A reader finds the old file or the new one, even after a crash or on a full disk. An
  artifact is durable when `Study.write` returns. ``stages.json`` is written after it and holds the digest of the inputs
  that it was made from. A stage whose artifact has the digest of its inputs returns that artifact. After a crash
  between the two writes, the stage runs again.
- **Losses are durable at once**, when `Trials.observe` returns, unless many come: then half a second's are written
  together. Other series, the cost and the status of a run are when `Trials.finish` returns. A run that was interrupted
  continues from its checkpoint below ``members/`` and reports its last points again, with the same values.
- **A study is what its spec and the content of its model and rows are.** A folder that has artifacts of another study
  is refused. Where the folder, the model and the rows are, and what may differ between starts (workers, trackers,
  limits), does not matter. Its runs in the storage are named after its content, so that studies that share a storage
  cannot take each other's, and one process at a time may write them, from whichever machine.

Running the same command again therefore resumes the study: finished stages are read, missing ones are run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO, TypeVar

from marslora.core.content import find_damage
from marslora.core.errors import ConfigError, StudyError
from marslora.core.files import explain_write_errors, remove_leftovers, write_text
from marslora.core.record import Record, digest_texts
from marslora.core.runs import FinalResult, Prepared, Run
from marslora.core.spec import SCHEMA_VERSION, StudySpec
from marslora.store.trials import Trials

R = TypeVar("R", bound=Record)

STAGES_FILE = "stages.json"
"""The file that holds ``{artifact: digest of its inputs}``."""

WRITTEN = ("plan", "runs", "final/adapter")
"""The folders, beside its own, in which the process that holds the lock writes artifacts."""


class Study:
    """One study folder. Use as a context manager: it holds the folder's lock until it is closed."""

    def __init__(self, folder: Path, spec: StudySpec, storage: str | None, lock: TextIO | None) -> None:
        self.folder = folder
        self.spec = spec
        self._storage = storage or f"sqlite:///{(folder / 'study.db').resolve()}"
        self._lock = lock
        self._trials: Trials | None = None
        self.tell: Callable[[str], None] = lambda _: None
        """Gets sentences about what was found damaged and is made again."""

    @classmethod
    def create(cls, folder: Path, spec: StudySpec, storage: str | None = None) -> Study:
        """Create or continue the study of ``spec`` in ``folder``, and lock the folder.

        Raises `StudyError` if another process is working on it, if it holds a study of another spec, or if it cannot be
        written. A spec without any artifact yet is replaced.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(
                f"the study folder {folder} cannot be created: {error.strerror}. Choose another folder."
            ) from None
        if not os.access(folder, os.W_OK):
            raise StudyError(f"the study folder {folder} is not writable. Make it writable or choose another folder.")
        lock = _take_lock(folder)
        path = folder / "spec.json"
        try:
            known = _load_spec(path) if path.exists() else None
            if known is not None and (folder / STAGES_FILE).exists():
                _check_same(known, spec, folder)
            else:
                write_text(path, spec.to_json())
            for written in (folder, *map(folder.joinpath, WRITTEN)):
                remove_leftovers(written)
        except BaseException:
            lock.close()
            raise
        return cls(folder, spec, storage, lock)

    @classmethod
    def open(cls, folder: Path, storage: str | None = None) -> Study:
        """Open an existing study to read it. Raises `StudyError` if ``folder`` is not a study folder."""
        path = folder / "spec.json"
        if not path.exists():
            raise StudyError(
                f"{folder} is not a study folder: it has no spec.json. Name the folder of a search or a comparison."
            )
        return cls(folder, _load_spec(path), storage, None)

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock and the database."""
        if self._trials is not None:
            self._trials.close()
            self._trials = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def identity(self) -> str:
        """A digest of the settings and of the content of model and rows. Reading the rows may change it, nothing else.

        Equal studies have equal ones, in whatever folders they, their model and their rows are.
        """
        prepared = self.read("prepared.json", Prepared)
        found = () if prepared is None else (prepared.data.fingerprint, prepared.model_fingerprint)
        return digest_texts(self.spec.without_place().digest(), *found)

    @property
    def trials(self) -> Trials:
        """The runs, as trials of an Optuna study named after what the study is, wherever its files are."""
        if self._trials is None:
            name = f"marslora-{self.identity}"
            writes = self._lock is not None
            self._trials = Trials(self._storage, name, self.spec.space, self.path("members"), writes=writes)
        return self._trials

    def runs(self) -> list[Run]:
        """Every run so far, in the order in which they first started."""
        return self.trials.runs()

    def finished_runs(self) -> list[Run]:
        """The runs as far as they have ended: those that strategies decide on."""
        return self.trials.runs(with_unfinished=False)

    def path(self, *names: str) -> Path:
        """A path inside the study folder."""
        return self.folder.joinpath(*names)

    def write_spec(self) -> None:
        """Store the spec, if the model or the rows are now in another place than when it was stored."""
        if _load_spec(self.path("spec.json")) != self.spec:
            write_text(self.path("spec.json"), self.spec.to_json())

    def read(self, name: str, kind: type[R], inputs: str | None = None) -> R | None:
        """Read the artifact ``name``; None if it is absent or was made from other ``inputs`` (a digest).

        A damaged one is absent for the process that can make it again; for any other it is a `StudyError`.
        """
        path = self.path(name)
        if not path.exists() or (inputs is not None and self._stages().get(name) != inputs):
            return None
        try:
            return kind.load(path)
        except (OSError, ValueError) as error:
            self._report_damage(path, error)
            return None

    def read_full_run(self, name: str) -> FinalResult | None:
        """The result ``NAME.json`` of the full run in the folder ``NAME``, with the adapter where it is now."""
        result = self.read(f"{name}.json", FinalResult)
        return result and result.model_copy(update={"adapter_folder": str(self.path(name, "adapter"))})

    def is_readable(self, name: str) -> bool:
        """Whether there is JSON in the artifact ``name``."""
        try:
            json.loads(self.path(name).read_text())
        except (OSError, ValueError):
            return False
        return True

    def has_whole_adapter(self, name: str) -> bool:
        """Whether the adapter of the full run in the folder ``name`` is there and can be loaded."""
        damage = find_damage(self.path(name, "adapter"))
        if damage:
            self.tell(f"{damage}; the adapter is made again")
        return damage is None

    def write(self, name: str, artifact: Record, inputs: str) -> None:
        """Store an artifact with the digest of its inputs. Raises `WriteError`."""
        self.write_json(name, artifact.model_dump(mode="json"), inputs)

    def write_json(self, name: str, values: Any, inputs: str) -> None:
        """Store values as a JSON artifact, as `write` does. Raises `WriteError`."""
        write_text(self.path(name), json.dumps(values, indent=2))
        write_text(self.path(STAGES_FILE), json.dumps({**self._stages(), name: inputs}, indent=2))

    def _stages(self) -> Mapping[str, str]:
        path = self.path(STAGES_FILE)
        try:
            stages = json.loads(path.read_text()) if path.exists() else {}
            if not isinstance(stages, dict):
                raise ValueError(f"it must be a mapping, found {stages!r}")
        except (OSError, ValueError) as error:
            self._report_damage(path, error)
            return {}
        return stages

    def _report_damage(self, path: Path, error: Exception) -> None:
        if self._lock is None:
            raise StudyError(
                f"{path} cannot be read ({error}). Run the search or the comparison again: it makes the file again "
                "from what was measured."
            ) from None
        self.tell(f"{path} cannot be read and is made again ({error})")


def _take_lock(folder: Path) -> TextIO:
    """Lock the folder. Where the file system has no locks, the one in the storage is the only one."""
    with explain_write_errors(folder / ".lock"):
        lock = (folder / ".lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise StudyError(
            f"another process (pid {owner}) is working on {folder}. Wait for it, or choose another folder."
        ) from None
    except OSError:
        return lock
    with contextlib.suppress(OSError):  # on a full disk the lock is as good without the name
        os.truncate(lock.fileno(), 0)
        os.pwrite(lock.fileno(), f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
    return lock


def _load_spec(path: Path) -> StudySpec:
    try:
        values = json.loads(path.read_text())
        version = values["schema_version"]
    except (ValueError, TypeError, KeyError) as error:
        reason = "it has no schema_version" if isinstance(error, TypeError | KeyError) else str(error)
        raise StudyError(f"{path} cannot be read ({reason}). Restore it or choose another folder.") from None
    if version != SCHEMA_VERSION:
        reason = f"its spec.json has schema version {version}, this version needs {SCHEMA_VERSION}"
    else:
        try:
            return StudySpec.parse(values, path.name)
        except ConfigError as error:
            reason = str(error)
    raise StudyError(
        f"the study folder {path.parent} was made by another version of marslora ({reason}). "
        "Choose another folder, or continue it with the version that made it."
    )


def _check_same(old: StudySpec, new: StudySpec, folder: Path) -> None:
    old, new = old.without_place(), new.without_place()
    if old == new:
        return
    changes = [
        f"{field}: {before!r} there, {after!r} now"
        for field, before, after in _find_differences(old.model_dump(mode="json"), new.model_dump(mode="json"))
    ]
    raise StudyError(
        f"the study folder {folder} holds a study with other settings ({'; '.join(changes)}). Choose another folder, "
        "or use the same settings."
    )


def _find_differences(old: Any, new: Any, field: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            item
            for key in {**old, **new}
            for item in _find_differences(old.get(key), new.get(key), f"{field}.{key}".lstrip("."))
        ]
    return [] if old == new else [(field, old, new)]
