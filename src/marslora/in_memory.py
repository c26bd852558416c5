"""Models and rows that are objects in Python get names, since specs hold texts alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from marslora.core.errors import ConfigError
from marslora.core.words import BLANK, is_blank


def register_inputs(options: Mapping[str, Any], processor: Any) -> dict[str, Any]:
    """Return the options with names in the place of models and rows in memory, and with texts in the place of paths.

    A nested ``model`` or ``data`` section is taken as it is. Raises `ConfigError` for what is neither rows nor a file.
    """
    values = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    if values.get("model") is not None and not isinstance(values["model"], Mapping):
        values["model"] = register_model(values["model"], processor)
    for name in ("train", "validation", "test"):
        if values.get(name) is not None:
            values[name] = register_rows(name, values[name])
    return values


def register_model(model: Any, processor: Any) -> str:
    """Return the path of a model; one in memory is registered and gets the name of its contents.

    Raises `ConfigError` for what is neither a path nor a model, and for a model without its ``processor``.
    """
    if isinstance(model, str | Path):
        if is_blank(str(model)):
            raise ConfigError(f"`model` {BLANK}")
        return str(model)
    if not hasattr(model, "named_parameters"):
        raise ConfigError(f"`model` must be a folder, a hub name or a model in memory, found {model!r}.")
    from marslora.models import loading

    if processor is None:
        raise ConfigError(
            f"`processor` is missing: the model in memory ({type(model).__name__}) needs one. "
            "Give `processor=AutoProcessor.from_pretrained(...)`."
        )
    return loading.register_model(
        f"{type(model).__name__}-{loading.fingerprint_model(model, processor)}", model, processor
    )


def register_rows(name: str, rows: Any) -> tuple[str, ...]:
    """Return the files of some rows; rows in memory are registered under ``name``."""
    if isinstance(rows, str | Path):
        return (str(rows),)
    kinds = {_name_kind(row) for row in rows} if isinstance(rows, list | tuple) else {"row"}
    if not isinstance(rows, Iterable) or isinstance(rows, bytes | bytearray) or len(kinds) > 1 or "other" in kinds:
        raise ConfigError(f"`{name}` must be a file, several files, or a sequence of rows, found {str(rows)[:200]}.")
    if kinds <= {"file"}:
        return tuple(str(row) for row in rows)
    from marslora.data import splits

    return (splits.register_rows(name, rows),)


def _name_kind(row: Any) -> str:
    return "file" if isinstance(row, str | Path) else "row" if isinstance(row, Mapping) else "other"
