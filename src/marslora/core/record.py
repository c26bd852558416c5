"""Frozen, strict, JSON-ready records: what travels between the rooms and what lies in a study folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from marslora.core.errors import ConfigError


class Record(BaseModel):
    """A frozen record. Unknown fields are refused; equal records have equal digests."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    @classmethod
    def parse(cls, values: Any, source: str = "") -> Self:
        """The record that ``values`` describe; `ConfigError` with one line a wrong field otherwise."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(explain(error, source or cls.__name__)) from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """The record stored as JSON in ``path``."""
        return cls.parse(json.loads(path.read_text()), str(path))

    def to_json(self) -> str:
        """Indented JSON that `load` reads back to an equal record."""
        return self.model_dump_json(indent=2)

    def digest(self) -> str:
        """16 hex digits that change when any field changes."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def explain(error: ValidationError, source: str) -> str:
    """One line for a pydantic error: the field, what is wrong with it, what was found."""
    lines = []
    for item in error.errors():
        field = ".".join(str(step) for step in item["loc"])
        where = f"`{field}`: " if field else ""
        own = item["type"] == "value_error"  # validators of this package say themselves what they found
        found = "" if own else f" (found {item.get('input')!r})"
        lines.append(f"{where}{item['msg'].removeprefix('Value error, ')}{found}")
    return f"{source}: " + "; ".join(lines)
