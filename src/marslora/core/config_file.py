"""Read configuration files, and let some settings override others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marslora.core.errors import ConfigError
from marslora.core.words import read_pairs, read_plugin

MOST_BYTES, MOST_VALUES = 1 << 20, 10_000
"""The largest configuration file that is read, and the most values in it: far more than all settings together."""


def read_config(path: Path | None) -> dict[str, Any]:
    """The settings in a YAML or JSON file; an empty mapping without a path. Raises `ConfigError` if it is not valid."""
    if path is None:
        return {}
    import yaml

    if not path.is_file():
        found = "is no file" if path.exists() else "does not exist"
        raise ConfigError(f"configuration file {path} {found}. Check the path.")
    if path.stat().st_size > MOST_BYTES:
        raise ConfigError(f"configuration file {path} has more than {MOST_BYTES:,} bytes. Name the right file.")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path} must be valid YAML: {' '.join(str(error).split())}.") from None
    if not _is_small(settings):
        raise ConfigError(
            f"configuration file {path} stands for more than {MOST_VALUES:,} values, because an alias (*name) repeats "
            "what itself has aliases, or itself. Write them out."
        )
    if not isinstance(settings, dict):
        raise ConfigError(f"configuration file {path} must be a mapping with `model`, `data`, ..., found {settings!r}.")
    return settings


def _is_small(settings: Any) -> bool:
    """Whether there are at most `MOST_VALUES` values, counted as often as aliases repeat them."""
    waiting, count = [settings], 0
    while waiting and count <= MOST_VALUES:
        value = waiting.pop()
        count += 1
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return count <= MOST_VALUES


def merge_settings(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the values of ``over``, of which those that are None are ignored.

    Where ``base`` has the settings of a plugin, a text names a plugin; naming another one replaces the options too.
    Texts such as ``vision=1e-4`` override single entries of a mapping. Raises `ConfigError` for other values there.
    """
    merged = dict(base)
    for key, text in over.items():
        value = _read_words(key, merged.get(key), text)
        if isinstance(value, Mapping) and key != "ranks":
            inner = merged.get(key) or {}
            if isinstance(inner, str):
                inner = _read_plugin(key, inner) if set(value) <= {"name", "options"} else inner
            if not isinstance(inner, Mapping):
                raise ConfigError(f"`{key}` must be settings such as {next(iter(value))}: ..., found {inner!r}.")
            is_other = value.get("name") and inner.get("name") != value["name"]
            merged[key] = merge_settings({} if is_other else inner, value)
        elif value is not None:
            merged[key] = value
    return merged


def _read_words(key: str, base: Any, value: Any) -> Any:
    """Convert a text or a list of texts that override a mapping to a mapping; return anything else unchanged."""
    if not isinstance(base, Mapping) or key == "ranks":
        return value
    if isinstance(value, str) and set(base) <= {"name", "options"}:
        return _read_plugin(key, value)
    if isinstance(value, list) and all(isinstance(word, str) and "=" in word for word in value):
        return read_pairs(value, "vision=1e-4")
    return value


def _read_plugin(key: str, text: str) -> dict[str, Any]:
    try:
        return read_plugin(text)
    except ValueError as error:
        raise ConfigError(f"`{key}` {error}.") from None
