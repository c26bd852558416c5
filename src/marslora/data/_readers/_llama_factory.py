"""LLaMA-Factory registries: ``dataset_info.json`` names data sets and the names of their columns and roles."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from marslora.core.data_files import REGISTRY_FILE
from marslora.core.errors import DataError
from marslora.data._readers._base import Row
from marslora.data._values import describe_value

_ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
"""The columns of the ``alpaca`` layout if an entry does not name its own."""
_READ = ("messages", "prompt", "query", "response", "history", "system", "images", "audios", "videos")
"""What an entry may name of its columns, and marslora reads."""
_OURS = (
    *("messages", "conversations", "prompt", "completion", "instruction", "input", "output", "history", "system"),
    *("query", "response", "question", "answer", "text", "caption", "transcription"),
    *("images", "image", "audios", "audio", "videos", "video"),
)
"""Columns that marslora would read by their names, although the entry does not name them."""
_TAGS = {"role": "from", "content": "value", "user": "human", "assistant": "gpt", "system": "system"}
"""Keys and roles of the turns of the ``sharegpt`` layout if an entry does not name its own."""
_OPENAI_TAGS = {"role": "role", "content": "content", "user": "user", "assistant": "assistant", "system": "system"}
"""The same for the ``openai`` layout."""


def find_entry(info: Path, name: str | None) -> tuple[str, dict[str, Any]]:
    """(name, entry) of the data set ``name`` in a registry; without a name, of the only one.

    Raises `DataError` if the registry cannot be read, if the name is missing or unknown, or if marslora cannot use the
    data set.
    """
    entries = _read_registry(info)
    if name is None and len(entries) == 1:
        name = next(iter(entries))
    if name is None or name not in entries:
        problem = f"has no data set called `{name}`" if name else f"holds {len(entries)} data sets"
        raise DataError(f"`{info}` {problem}. Name one of {sorted(entries)}: {info.parent}#NAME.")
    entry = entries[name]
    if reason := _find_problem(entry):
        raise DataError(f"`{info}`: the data set `{name}` {reason}.")
    return name, entry


def _read_registry(info: Path) -> dict[str, dict[str, Any]]:
    try:
        entries = json.loads(info.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"`{info}` cannot be read ({error}). It must be a JSON file of data sets by name.") from None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise DataError(
            f'`{info}` must be an object of data sets by name, such as {{"talk": {{"file_name": "talk.json"}}}}, '
            f"found {type(entries).__name__ if not isinstance(entries, dict) else 'entries that are not objects'}."
        )
    return entries


def _find_problem(entry: Mapping[str, Any]) -> str | None:
    """Why marslora cannot use a data set, with the way out; None if it can."""
    if entry.get("ranking"):
        return "holds preferences (`ranking`), not conversations: name a data set without `ranking`"
    if "file_name" not in entry:
        return f"has no `file_name` but {sorted(entry)}: save it to a file and name that under `file_name`"
    if not isinstance(entry["file_name"], str):
        return f"must have the name of a file as `file_name`, found {entry['file_name']!r}: correct it"
    if entry.get("num_samples"):
        return f"has `num_samples` {entry['num_samples']}: remove it and limit the rows with --max-examples"
    return None


def make_converter(entry: Mapping[str, Any], info: Path) -> Callable[[dict[str, Any]], Row]:
    """A function that turns a row of the data set into a row in one of marslora's formats."""
    layout = entry.get("formatting", "alpaca")
    if layout not in ("alpaca", "sharegpt", "openai"):
        raise DataError(f"`formatting` in `{info}` must be alpaca, sharegpt or openai, found {layout!r}.")
    columns = {name: column for name, column in entry.get("columns", {}).items() if column}
    if layout == "alpaca":
        names = columns if "columns" in entry else _ALPACA
        return lambda row: _add_media(row, columns, _convert_alpaca(row, names))
    tags = dict(_OPENAI_TAGS if layout == "openai" else _TAGS)
    tags |= {name.removesuffix("_tag"): tag for name, tag in entry.get("tags", {}).items() if tag}
    return lambda row: _add_media(row, columns, _convert_conversation(row, columns, tags))


def _convert_alpaca(row: Mapping[str, Any], names: Mapping[str, str]) -> Row:
    output = row.get(names.get("response", ""))
    if output is None:
        return (
            f"the column `{names.get('response')}` (response) is missing, found {sorted(row)}: correct `columns` in "
            f"{REGISTRY_FILE}"
        )
    converted = {"instruction": row.get(names.get("prompt", "")) or "", "output": output}
    for ours, theirs in (("input", "query"), ("history", "history"), ("system", "system")):
        if row.get(names.get(theirs, "")):
            converted[ours] = row[names[theirs]]
    return converted


def _convert_conversation(row: Mapping[str, Any], columns: Mapping[str, str], tags: Mapping[str, str]) -> Row:
    column = columns.get("messages", "conversations")
    turns = row.get(column)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return (
            f"the column `{column}` must hold a list of turns, found {describe_value(turns)}: correct `columns` in "
            f"{REGISTRY_FILE}"
        )
    roles = {tags[role]: role for role in ("user", "assistant", "system")}
    messages = [
        {
            **{key: value for key, value in turn.items() if key not in (tags["role"], tags["content"])},
            "role": roles.get(turn.get(tags["role"]), turn.get(tags["role"])),
            "content": turn.get(tags["content"]),
        }
        for turn in turns
    ]
    starts_with_system = bool(messages) and messages[0]["role"] == "system"
    system = row.get(columns.get("system", ""))
    return {"messages": messages, "system": system} if system and not starts_with_system else {"messages": messages}


def _add_media(row: Mapping[str, Any], columns: Mapping[str, str], converted: Row) -> Row:
    if isinstance(converted, str):
        return converted
    read = {columns[name] for name in _READ if name in columns} or {*_ALPACA.values(), "conversations"}
    rest = {name: value for name, value in row.items() if name not in read}
    hidden = {f"{name} (not in {REGISTRY_FILE})": rest.pop(name) for name in _OURS if name in rest}
    media = {kind: row.get(columns[kind]) for kind in ("images", "audios", "videos") if kind in columns}
    return {**rest, **hidden, **converted, **media}
