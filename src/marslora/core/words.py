"""Convert texts from the command line, configuration files and Python to values, and values to texts."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

BLANK = "must not be empty: is a variable of the shell empty? Give a value, or leave it out."
"""What is said of an empty text, which would otherwise name the current folder."""
_COMMAS_OUTSIDE_BRACKETS = re.compile(r",(?![^\[{]*[\]}])")


def is_blank(value: Any) -> bool:
    """Whether a value is, or among several holds, a text of nothing but spaces."""
    words = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else ()
    return any(isinstance(word, str) and not word.strip() for word in words)


def read_value(text: str) -> Any:
    """Read a text as a YAML value, e.g. a number, ``true`` or ``[0.9, 0.99]``. Raises `ValueError` if it is none."""
    import yaml

    if "e" in text.lower():  # in YAML 1.1, 1e-3 is a text
        with contextlib.suppress(ValueError):
            return float(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"must be a YAML value, found {text!r}: quote it, or correct its syntax") from None


def read_options(text: str) -> dict[str, Any]:
    """Read ``"eta=4,betas=[0.9,0.99]"`` as a mapping of values. Raises `ValueError` for anything else."""
    pairs = read_pairs([word for word in _COMMAS_OUTSIDE_BRACKETS.split(text) if word], "key=value,key=value")
    return {key: read_value(value) for key, value in pairs.items()}


def read_plugin(text: str) -> dict[str, Any]:
    """Read ``"mars"``, ``"package.module:Class"`` or ``"mars:sweep=0.25"`` as the fields of a `PluginSpec`."""
    before, equals, _ = text.partition("=")
    name = before.rpartition(":")[0]  # values may hold colons too
    if not name or not equals:
        return {"name": text}
    return {"name": name, "options": read_options(text.removeprefix(f"{name}:"))}


def read_pairs(words: Sequence[str], example: str) -> dict[str, str]:
    """Read ``["a=b", "c=d"]`` as a mapping of texts. Raises `ValueError`, which gives the example, for other texts.

    A name that is there twice is refused too.
    """
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = (piece.strip() for piece in word.partition("="))
        if not (name and equals and value):
            raise ValueError(f"must look like {example}, found {word!r}")
        if name in pairs:
            raise ValueError(f"must name {name} once, found {name}={pairs[name]} and {word}")
        pairs[name] = value
    return pairs


def read_numbers(text: str, example: str) -> tuple[int, ...]:
    """Read ``"4,16,64"`` as whole numbers. Raises `ValueError`, which gives the example, for anything else."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"must be {example}, found {text!r}") from None


def write_value(value: Any) -> str:
    """Write a value such that `read_value` reads it again: ``0.25``, ``true``, ``[0.9,0.99]``."""
    import json

    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def write_words(value: Any) -> str:
    """Write a value as it is typed on the command line: ``1,4,16,64``, ``0.0002``, ``mars``."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={write_words(each)}" for name, each in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(write_words, value))
    return str(value)
