"""What several row formats read in the same way: a system text, a history, turns as JSON text."""

from __future__ import annotations

import json
from typing import Any

from marslora.core.errors import DataError
from marslora.data._values import describe_value

Turns = list[dict[str, Any]]


def read_system(row: dict[str, Any]) -> Turns:
    """The turn of the column ``system``; no turn if it is empty."""
    system = row.get("system")
    return [{"role": "system", "content": read_text(row, "system")}] if system else []


def read_text(row: dict[str, Any], column: str) -> str:
    """The text of a column. Raises `DataError` if it holds anything else."""
    value = row[column]
    if not isinstance(value, str):
        raise DataError(f"`{column}` must be text, found {describe_value(value)}: write it as text")
    return value


def read_history(row: dict[str, Any]) -> Turns:
    """The turns of the column ``history``: pairs of a question and its answer."""
    turns: Turns = []
    history = row.get("history") or ()
    if not isinstance(history, list | tuple):
        history = [history]
    for pair in history:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise DataError(
                f"`history` must be a list of pairs of a question and its answer, found {describe_value(pair)} in it"
            )
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return turns


def read_list(row: dict[str, Any], column: str) -> list[Any]:
    """The turns of a column, a list or JSON text of one. Raises `DataError` if it holds anything else."""
    value = row[column]
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError(f"`{column}` is not valid JSON ({error}): write a list of turns") from None
    if not isinstance(value, list | tuple):
        raise DataError(f"`{column}` must be a list of turns, found {describe_value(value)}")
    return list(value)
