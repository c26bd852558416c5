"""Frozen, strict records that convert to JSON. Packages and processes exchange them, and a study folder holds them."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from marslora.core.errors import ConfigError


class Record(BaseModel):
    """A frozen record. Unknown fields are refused; equal records have equal digests."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid", ser_json_inf_nan="strings")

    @classmethod
    def parse(cls, values: Any, source: str = "", labels: Mapping[tuple[str, ...], str] = MappingProxyType({})) -> Self:
        """Make a record from ``values``, e.g. a mapping.

        Raises `ConfigError` with one sentence for each wrong field. Messages name a field by its entry in ``labels``,
        if there is one for its path, and otherwise by its path in ``source``.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(explain(error, source or cls.__name__, cls, labels)) from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the record from the JSON file ``path``. Raises `OSError`, `ValueError` or `ConfigError`."""
        return cls.parse(json.loads(path.read_text()), str(path))

    def to_json(self) -> str:
        """The record as indented JSON, from which `load` makes an equal record."""
        return self.model_dump_json(indent=2)

    def digest(self) -> str:
        """16 hex digits that change when any field changes."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return digest_texts(text)


def digest_texts(*texts: str) -> str:
    """16 hex digits that change when any of the texts changes; enough to name and to compare artifacts."""
    return hashlib.sha256("/".join(texts).encode()).hexdigest()[:16]


def explain(
    error: ValidationError,
    source: str,
    record: type[BaseModel],
    labels: Mapping[tuple[str, ...], str] = MappingProxyType({}),
) -> str:
    """Explain pydantic's errors, in one sentence each: the field, what it must be, what was found."""
    sentences: dict[str, list[str]] = {}
    for item in error.errors():
        path = tuple(str(step) for step in item["loc"])
        size = next((size for size in range(len(path), 0, -1) if path[:size] in labels), 0)
        name = " ".join(filter(None, (labels.get(path[:size], ""), ".".join(path[size:])))) if size else ""
        field = name or (f"`{'.'.join(path)}`" if path else "")
        sentences.setdefault("" if size else source, []).append(_explain_item(item, field, path, record))
    return "; ".join(
        f"{where}: {'; '.join(lines)}" if where else "; ".join(lines) for where, lines in sentences.items()
    )


def _explain_item(item: Mapping[str, Any], field: str, path: Sequence[str], record: type[BaseModel]) -> str:
    if item["type"] == "value_error":  # the messages of this package's validators are complete
        message = item["msg"].removeprefix("Value error, ")
        separator = " " if message.startswith("must ") else ": "
        return f"{field}{separator}{message}" if field else message
    if item["type"] == "missing":
        return f"{field} is missing"
    if item["type"] == "extra_forbidden":
        unknown = f"{field} is not a field (found {item.get('input')!r})."
        return unknown + suggest(path[-1], _known_fields(record, path[:-1]))
    must, _, _ = re.sub("^(Input|Value) should|^Input is not", _say_must, item["msg"]).partition(", unable to")
    return f"{field} {must}, found {item.get('input')!r}"


def _say_must(start: re.Match[str]) -> str:
    return "must be" if start[0].endswith("not") else "must"


def _known_fields(record: Any, path: Sequence[str]) -> Iterable[str]:
    for step in path:
        field = record.model_fields.get(step)
        record = field.annotation if field else None
        if not (isinstance(record, type) and issubclass(record, BaseModel)):
            return ()
    return list(record.model_fields)


def has_unknown(record: type[Record], values: Any, path: Sequence[str]) -> bool:
    """Whether nested ``values`` have an unknown field beside ``path`` or a section of it: that may be it, misspelt."""
    for depth, step in enumerate(path):
        if not isinstance(values, Mapping):
            return False
        if not values.keys() <= set(_known_fields(record, path[:depth])):
            return True
        values = values.get(step)
    return False


def suggest(name: str, known: Iterable[str]) -> str:
    """`` Did you mean `x`?`` for a name that resembles a known one or is its initials; empty otherwise."""
    return offer(find_similar(name, known))


def find_similar(name: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """The known names of which ``name`` is the initials, or else the two that resemble it most, if by ``cutoff``."""
    known = list(known)
    initials = [each for each in known if "_" in each and name == "".join(word[:1] for word in each.split("_"))]
    return initials or difflib.get_close_matches(name, known, n=2, cutoff=cutoff)


def offer(names: Sequence[str]) -> str:
    """`` Did you mean `x` or `y`?``; empty without a name."""
    return f" Did you mean {' or '.join(f'`{each}`' for each in names)}?" if names else ""
