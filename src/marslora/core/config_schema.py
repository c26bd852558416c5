"""Make the JSON schema of configuration files from the table of options, for the completion and checks of editors."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marslora.core.options import OptionRow, OptionTable
from marslora.core.record import Record

SIMPLE: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string"}
"""The schema's name of each type that has one."""


def make_schema(table: OptionTable, title: str) -> dict[str, Any]:
    """A JSON schema (draft 2020-12) with a property for every option; unknown keys and missing required ones are wrong.

    It accepts every form that a file may use, such as a text in the place of a list; that texts can be read, only the
    command itself checks.
    """
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **_make_object("object")}
    for row in table.rows:
        if row.option.key:
            continue  # an option of a plugin is written with the plugin
        place = schema
        for section in row.path[:-1]:
            place = place["properties"].setdefault(section, _make_object("object", "null"))
        place["properties"][row.path[-1]] = _describe(row)
        if row.is_required:
            place.setdefault("required", []).append(row.path[-1])
            if place is not schema and row.path[0] not in schema.setdefault("required", []):
                schema["required"].append(row.path[0])
    return schema


def _make_object(*kinds: str) -> dict[str, Any]:
    return {"type": list(kinds), "properties": {}, "additionalProperties": False}


def _describe(row: OptionRow) -> dict[str, Any]:
    described: dict[str, Any] = {"description": row.help}
    if kinds := sorted(find_kinds(row.type)):
        described["type"] = [*kinds] if row.is_required else [*kinds, "null"]
    if typing.get_origin(row.type) is typing.Literal:
        described = {
            "description": row.help,
            "enum": [*typing.get_args(row.type), *([] if row.is_required else [None])],
        }
    if isinstance(row.default, bool | int | float | str):
        described["default"] = row.default
    return described


def find_kinds(annotation: Any) -> set[str]:
    """The kinds of JSON values that a file may hold for a type; empty if any will do.

    Numbers may be texts, as YAML reads ``5e-4``; a list may be one text, and a plugin its name.
    """
    if annotation in SIMPLE:
        kind = SIMPLE[annotation]
        return {kind} if kind == "boolean" else {kind, "string"}
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        kinds = [find_kinds(each) for each in typing.get_args(annotation) if each is not types.NoneType]
        return set() if not all(kinds) else set().union(*kinds)
    if origin in (tuple, Sequence, list):
        return {"array", "string"}
    if origin in (dict, Mapping):
        return {"object", "array", "string"}
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return {"object", "string"}
    return set()
