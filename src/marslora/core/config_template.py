"""Write a configuration file with a comment for every option, from the table of options."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from marslora.core.options import OptionRow, OptionTable
from marslora.core.record import Record

WIDTH = 100
"""Columns of a comment."""


def write_template(table: OptionTable, given: Mapping[str, Any], head: str) -> str:
    """A YAML file in which the options in ``given``, by Python keyword, are set and every other one is a comment.

    ``head`` is the comment at its top. A section whose options are all comments counts as not given.
    """
    lines = [f"# {line}" for line in head.splitlines()]
    section: tuple[str, ...] = ()
    for row in table.rows:
        if row.option.key:
            continue  # an option of a plugin is written with the plugin
        if row.path[:-1] != section and row.path[:-1]:
            lines += ["", f"{row.path[0]}:"]
        elif row.path[:-1] != section:
            lines += [""]
        section = row.path[:-1]
        lines += _write_row(row, "  " * len(section), given)
    return "\n".join(lines) + "\n"


def _write_row(row: OptionRow, indent: str, given: Mapping[str, Any]) -> list[str]:
    comment = textwrap.wrap(row.help, WIDTH - len(indent))
    is_set = row.name in given
    value = given[row.name] if is_set else row.default
    written = f"{row.path[-1]}: {_write_value(value)}".rstrip()
    return [*(f"{indent}# {line}" for line in comment), f"{indent}{'' if is_set else '# '}{written}"]


def _write_value(value: Any) -> str:
    """A value as YAML on one line; JSON is YAML, and a plugin is written by its name."""
    if value is None or value in ((), {}):
        return ""
    if isinstance(value, Record):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
