"""Options of a table as the keywords of a Python function: its signature, its types and its docstring."""

from __future__ import annotations

import inspect
import textwrap
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from marslora.core.options import OptionRow, OptionTable
from marslora.core.record import Record

F = TypeVar("F", bound=Callable[..., Any])


def takes_options(table: OptionTable) -> Callable[[F], F]:
    """Decorate a function that takes ``**options``, so that `help` and completion show each option of the table.

    The function gets a signature with every keyword, its type and default; its docstring lists them in place of the
    line ``OPTIONS``. It is called as before.
    """
    rows = sorted(table.rows, key=lambda row: not row.is_required)

    def decorate(function: F) -> F:
        own = [
            parameter
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        parameters = [
            inspect.Parameter(
                row.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if row.is_required else _python_default(row),
                annotation=_python_type(row.type, may_be_none=row.default is None and not row.is_required),
            )
            for row in rows
        ]
        function.__signature__ = inspect.Signature([*parameters, *own])  # type: ignore[attr-defined]
        entries = [textwrap.fill(f"{row.name}: {row.help}", 108, subsequent_indent="    ") for row in rows]
        listed = textwrap.indent("\n".join(entries), " " * 8).strip()
        function.__doc__ = (function.__doc__ or "").replace("OPTIONS", listed)
        return function

    return decorate


def _python_default(row: OptionRow) -> Any:
    return str(row.default) if isinstance(row.default, Record) else row.default


def _python_type(annotation: Any, may_be_none: bool = False) -> Any:
    """The type that Python callers may pass for a field: also a single text for several, or a text for a plugin."""
    if may_be_none:
        return _python_type(annotation) | None
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return str | Mapping[str, Any]
    if annotation is Path:
        return str | Path
    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple:
        return str | Sequence[str] if inner[0] is str else Sequence[_python_type(inner[0])]  # type: ignore[misc]
    if typing.get_origin(annotation) is dict:
        return Mapping[str, typing.get_args(inner[1])[0]]  # type: ignore[misc]
    return annotation
