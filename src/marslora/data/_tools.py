"""Tools that a row describes, and the calls of them in its turns, in the form in which chat templates read them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from marslora.core.errors import DataError
from marslora.data._values import describe_value

CALLS_NOTE = "calls of tools: read where the model's chat template has them"
"""The note on rows whose use no one can tell without the model."""
Values = list[dict[str, Any]]


def read_tools(value: Any) -> Values:
    """The column ``tools``: a list of functions, or JSON text of one. Raises `DataError` for anything else."""
    return [_name_function(tool, "tools") for tool in _read_list(value, "tools")]


def read_calls(value: Any) -> Values:
    """A turn's ``tool_calls``, their arguments as an object, however they were written."""
    calls = []
    for call in _read_list(value, "tool_calls"):
        named = _name_function(call, "tool_calls")
        arguments = named["function"].get("arguments") or {}
        if isinstance(arguments, str):
            arguments = _parse(arguments, "arguments")
        if not isinstance(arguments, Mapping):
            raise DataError(f"a call's `arguments` must be an object, found {describe_value(arguments)}")
        calls.append({**named, "function": {**named["function"], "arguments": dict(arguments)}})
    return calls


def _read_list(value: Any, name: str) -> Sequence[Any]:
    value = _parse(value, name) if isinstance(value, str) else value
    if not isinstance(value, list | tuple):
        raise DataError(f"`{name}` must be a list of functions, found {describe_value(value)}")
    return value


def _parse(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"`{name}` is not valid JSON ({error}): write an object or a list") from None


def _name_function(value: Any, name: str) -> dict[str, Any]:
    """``{"type": "function", "function": {"name": ...}}``, also of a function alone."""
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise DataError(f"an entry of `{name}` must be a function with a `name`, found {describe_value(value)}")
    rest = {key: item for key, item in value.items() if key != "function"} if "function" in value else {}
    return {"type": "function", **rest, "function": dict(function)}


def check_template(messages: Sequence[Mapping[str, Any]], template: str) -> None:
    """Raise `DataError` if the messages call tools or describe some, and the template has no place for them."""
    for message in messages:
        for key in ("tools", "tool_calls"):
            if message.get(key) and key not in template:
                raise DataError(
                    f"the row has `{key}`, for which the model's chat template has no place: choose a model that is "
                    "made for calls of tools, or write them as text in the turns"
                )


def list_words(message: Mapping[str, Any]) -> Iterator[str]:
    """What a template must write of a message's tools and calls: names, and arguments that are text or numbers."""
    for tool in message.get("tools", ()):
        yield tool["function"]["name"]
    for call in message.get("tool_calls", ()):
        yield call["function"]["name"]
        yield from _list_leaves(call["function"]["arguments"])


def _list_leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _list_leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _list_leaves(item)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield str(value)
