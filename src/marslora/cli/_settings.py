"""Command-line words and configuration files become the settings of a spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marslora.core.errors import ConfigError


def ladder(text: str, option: str) -> tuple[int, ...]:
    """``"4,16,64"`` as ranks."""
    return _numbers(text, option, "ranks such as 4,16,64")


def seeds(text: str) -> tuple[int, ...]:
    """``"0,1,2"`` as seeds."""
    return _numbers(text, "--seeds", "numbers such as 0,1,2")


def _numbers(text: str, option: str, expected: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ConfigError(f"`{option}` must be {expected}, found {text!r}.") from None


def ranks(words: Sequence[str]) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
    """``["4,16,64"]`` for every part, or ``["vision=4,16", "language=16,64"]``."""
    if len(words) == 1 and "=" not in words[0]:
        return ladder(words[0], "--ranks")
    return {part: ladder(text, f"--ranks {part}") for part, text in pairs(words, "--ranks", "vision=4,16,64").items()}


def rates(words: Sequence[str]) -> dict[str, float]:
    """``["vision=1e-4"]`` as learning rates by part."""
    found = pairs(words, "--part-learning-rate", "vision=1e-4")
    try:
        return {part: float(text) for part, text in found.items()}
    except ValueError:
        raise ConfigError(f"`--part-learning-rate` must be numbers such as vision=1e-4, found {found}.") from None


def pairs(words: Sequence[str], option: str, example: str) -> dict[str, str]:
    """``["a=b", ...]`` as a mapping."""
    for word in words:
        if "=" not in word:
            raise ConfigError(f"`{option}` must look like {example}, found {word!r}.")
    return {name: text for name, _, text in (word.partition("=") for word in words)}


def read_config(path: Path | None) -> dict[str, Any]:
    """The settings of a YAML or JSON file; an empty mapping without one."""
    if path is None:
        return {}
    import yaml

    if not path.is_file():
        raise ConfigError(f"configuration file {path} does not exist.")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"configuration file {path} must be a mapping with `model`, `data`, ..., found {found!r}.")
    return found


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``over`` that were given; None and empty ones leave ``base`` as it is.

    A word in the place of settings is a kind's name. Raises `ConfigError` for what is neither.
    """
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and key != "ranks":
            inner = merged.get(key) or {}
            if isinstance(inner, str) and "name" in value:
                inner = {"name": inner}
            if not isinstance(inner, Mapping):
                raise ConfigError(f"`{key}` must be settings such as {next(iter(value))}: ..., found {inner!r}.")
            merged[key] = merge(inner, value)
        elif value not in (None, (), [], {}):
            merged[key] = value
    return {key: value for key, value in merged.items() if value != {}}


def take(settings: Mapping[str, Any], section: str, name: str) -> Any:
    """A setting of a section, which loses it; None where it is not given."""
    found = settings.get(section)
    return found.pop(name, None) if isinstance(found, dict) else None
