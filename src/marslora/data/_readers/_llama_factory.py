"""LLaMA-Factory: ``dataset_info.json`` names data sets and says what their columns and roles are called."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from marslora.core.errors import DataError
from marslora.data._readers._base import Row

INFO = "dataset_info.json"
_ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
_TAGS = {"role": "from", "content": "value", "user": "human", "assistant": "gpt", "system": "system"}
_OPENAI_TAGS = {"role": "role", "content": "content", "user": "user", "assistant": "assistant", "system": "system"}


def find_entry(info: Path, name: str | None) -> tuple[str, dict[str, Any]]:
    """(name, entry) of the data set ``name``; without a name, the only one. `DataError` where that is not clear."""
    try:
        entries = json.loads(info.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"`{info}` cannot be read: {error}.") from None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise DataError(f"`{info}` must be an object of data sets by name.")
    if name is None and len(entries) == 1:
        name = next(iter(entries))
    if name is None or name not in entries:
        found = f"no data set called `{name}`" if name else f"{len(entries)} data sets"
        raise DataError(f"`{info}` holds {found}. Name one of {sorted(entries)}: {info.parent}#NAME.")
    entry = entries[name]
    if entry.get("ranking") or "file_name" not in entry or entry.get("num_samples"):
        reason = "is for preferences" if entry.get("ranking") else "has no `file_name`: save it to a file first"
        if entry.get("num_samples") and "file_name" in entry:
            reason = "has `num_samples`: remove it and use --max-examples"
        raise DataError(f"`{info}`: data set `{name}` {reason}.")
    return name, entry


def make_converter(entry: Mapping[str, Any]) -> Callable[[dict[str, Any]], Row]:
    """What turns a row of the data set into a row of messages."""
    layout = entry.get("formatting", "alpaca")
    if layout not in ("alpaca", "sharegpt", "openai"):
        raise DataError(f"`formatting` in {INFO} must be alpaca, sharegpt or openai, found {layout!r}.")
    columns = {name: column for name, column in entry.get("columns", {}).items() if column}
    if layout == "alpaca":
        names = columns if "columns" in entry else _ALPACA
        return lambda row: _with_media(row, columns, _alpaca(row, names))
    tags = dict(_OPENAI_TAGS if layout == "openai" else _TAGS)
    tags |= {name.removesuffix("_tag"): tag for name, tag in entry.get("tags", {}).items() if tag}
    return lambda row: _with_media(row, columns, _conversation(row, columns, tags))


def _alpaca(row: Mapping[str, Any], names: Mapping[str, str]) -> Row:
    output = row.get(names.get("response", ""))
    if output is None:
        return f"the column `{names.get('response')}` (response) is missing, found {sorted(row)}"
    found = {"instruction": row.get(names.get("prompt", "")) or "", "output": output}
    for ours, theirs in (("input", "query"), ("history", "history"), ("system", "system")):
        if row.get(names.get(theirs, "")):
            found[ours] = row[names[theirs]]
    return found


def _conversation(row: Mapping[str, Any], columns: Mapping[str, str], tags: Mapping[str, str]) -> Row:
    column = columns.get("messages", "conversations")
    turns = row.get(column)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return f"the column `{column}` must hold a list of turns, found {type(turns).__name__}"
    roles = {tags[role]: role for role in ("user", "assistant", "system")}
    found: dict[str, Any] = {
        "messages": [
            {"role": roles.get(turn.get(tags["role"]), turn.get(tags["role"])), "content": turn.get(tags["content"])}
            for turn in turns
        ]
    }
    if (system := row.get(columns.get("system", ""))) and [turn["role"] for turn in found["messages"][:1]] != [
        "system"
    ]:
        found["system"] = system
    return found


def _with_media(row: Mapping[str, Any], columns: Mapping[str, str], found: Row) -> Row:
    if isinstance(found, str):
        return found
    return {**found, **{kind: row.get(columns[kind]) for kind in ("images", "audios", "videos") if kind in columns}}
