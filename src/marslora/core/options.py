"""One table of options for the command line and for Python.

A field of a record that carries an `Option` is an option of the commands and a keyword of the functions that take it:

    learning_rate: Annotated[float, Field(gt=0), Option(TRAINING, short="--lr")] = 2e-4
    \"\"\"Learning rate of the adapters.\"\"\"

The field's name, type, limits, default and docstring are all that ``--learning-rate`` and
``marslora.search(learning_rate=...)`` need: a new option is one field. Values reach the field's validators as they were
typed on the command line, so a field that takes more than a number or a text parses them there.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict
from pydantic.fields import FieldInfo

from marslora.core.errors import ConfigError
from marslora.core.record import Record, find_similar, has_unknown, offer
from marslora.core.words import BLANK, is_blank, read_plugin, read_value, write_words

INPUT, SEARCHING, TRAINING, RUNNING = "What to tune", "How to search", "How to train", "Machine and output"
"""The groups of options in the help of a command, in this order."""
LIMITS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
"""The words that the help uses for the limits of pydantic's `Field`."""
METAVARS: dict[Any, str] = {int: "INTEGER", float: "NUMBER", str: "TEXT"}
"""The placeholder that the help shows for a value of each type; ``TEXT`` for any other."""
Style = Literal["keyword", "flag"]
"""How error messages name an option: as a Python keyword or as a flag of the command line."""
SIMILAR = 0.75
"""How similar a name must be to that of an option to be taken for it: ``rate`` and ``private`` are less (0.73)."""
R = TypeVar("R", bound=Record)


class OptionRecord(Record):
    """A record with options among its fields: the docstring of a field is its description."""

    model_config = ConfigDict(use_attribute_docstrings=True)


@dataclass(frozen=True)
class Option:
    """What the command line and Python need besides a field's name, type, limits, default and docstring."""

    panel: str
    """The group of the option in the help."""
    name: str = ""
    """The Python keyword; by default the name of the field."""
    flag: str = ""
    """The flag; by default the keyword with dashes."""
    short: str = ""
    """A second flag, e.g. ``-m``."""
    other_names: tuple[str, ...] = ()
    """What other trainers call it, or nearly it, with underscores. Whoever writes one is told of this option."""
    metavar: str = ""
    """The placeholder for the value in the help; by default its type."""
    hint: str = ""
    """What to do if a required option is missing."""
    is_repeatable: bool | None = None
    """Whether the flag may be given several times; by default true if the field is a tuple or a mapping."""
    key: str = ""
    """For a field that holds a plugin: which option of the plugin to set, instead of its name. Needs ``name``, ``type``
    and ``help``."""
    type: Any = None
    """The type that Python callers may pass; by default the type of the field."""
    help: str = ""
    """The description; by default the docstring of the field."""


@dataclass(frozen=True)
class OptionRow:
    """One option of a table."""

    option: Option
    record: type[Record]
    """The record in which the value is set, perhaps in one of its sections."""
    path: tuple[str, ...]
    """The path of the value in the record, e.g. ``("training", "learning_rate")``."""
    type: Any
    """The type of the value; None is left out of unions."""
    default: Any
    is_required: bool
    description: str
    limits: str
    """Such as ``above 0``; empty if there are none."""

    @property
    def name(self) -> str:
        """The name of the Python keyword."""
        return self.option.name or self.path[-1]

    @property
    def flag(self) -> str:
        """The flag of the command line."""
        return self.option.flag or f"--{self.name.replace('_', '-')}"

    @property
    def is_switch(self) -> bool:
        """Whether the option is on or off, and takes no value on the command line."""
        return self.type is bool

    @property
    def is_repeatable(self) -> bool:
        """Whether the flag may be given several times."""
        has_several = typing.get_origin(self.type) in (tuple, dict)
        return has_several if self.option.is_repeatable is None else self.option.is_repeatable

    @property
    def metavar(self) -> str:
        """The placeholder for the value in the help of the command line."""
        if typing.get_origin(self.type) is Literal:
            return "|".join(map(str, typing.get_args(self.type)))
        return self.option.metavar or METAVARS.get(self.type, "TEXT")

    @property
    def default_text(self) -> str:
        """The default as it would be typed; empty if the description says what happens without the option."""
        if self.is_required or self.default in (None, (), {}):
            return ""
        if self.is_switch:
            return "on" if self.default else "off"
        return write_words(self.default)

    @property
    def help(self) -> str:
        """The help text: the description, the limits and the default."""
        what, _, without = self.description.partition(" Default: ")
        limits = f"{what} Must be {self.limits}." if self.limits else what
        default = without or (f"{self.default_text}." if self.default_text else "")
        return f"{limits} Default: {default}" if default else limits

    def show(self, style: Style) -> str:
        """The option's name in an error message, in backquotes."""
        return f"`{self.flag}`" if style == "flag" else f"`{self.name}`"


@dataclass(frozen=True)
class OptionTable:
    """The options of one or more records."""

    rows: tuple[OptionRow, ...]
    sections: tuple[str, ...] = ()
    """The names of the fields that are records themselves, such as ``training``, and may be given as mappings."""

    @classmethod
    def of(cls, *records: type[Record], without: Sequence[str] = ()) -> OptionTable:
        """The table of all options of ``records`` except those named in ``without``.

        Raises `TypeError` for a name or a flag that two fields have.
        """
        rows = [row for record in records for row in find_rows(record, record) if row.name not in without]
        for words in ([row.name for row in rows], [flag for row in rows for flag in (row.flag, row.option.short)]):
            if repeated := sorted({word for word in words if word and words.count(word) > 1}):
                raise TypeError(f"two options cannot have the same name, found {repeated}; set `Option.name`")
        return cls(tuple(rows), tuple(dict.fromkeys(row.path[0] for row in rows if len(row.path) > 1)))

    @cached_property
    def by_name(self) -> Mapping[str, OptionRow]:
        """Each option by its Python keyword."""
        return {row.name: row for row in self.rows}

    def suggest(self, name: str, style: Style) -> list[str]:
        """The options that whoever wrote ``name``, which is none of them, may have meant; the likeliest first."""
        written = name.lstrip("-").replace("-", "_").lower()
        named = [row for row in self.rows if written in row.option.other_names]
        close = named or [self.by_name[each] for each in find_similar(written, self.by_name, SIMILAR)]
        return [row.flag if style == "flag" else row.name for row in close]

    def nest(self, values: Mapping[str, Any], function: str) -> dict[str, Any]:
        """Turn values by keyword into nested settings; a keyword overrides a section such as ``training={...}``.

        The order of the keywords does not matter, and None means "not given". Raises `ConfigError`, which names
        ``function``, for an unknown keyword and for a section that is not a mapping.
        """
        given = {name: value for name, value in values.items() if value is not None}
        self._check_keywords(values, function)
        is_section = {name: self._is_section(name, value) for name, value in given.items()}
        settings = {name: _read_section(value) for name, value in given.items() if is_section[name]}
        for row in self.rows:
            if row.name in given and not is_section[row.name]:
                value = given[row.name]
                is_text = row.option.key and isinstance(value, str)
                try:
                    settings = put(settings, row.path, read_value(value) if is_text else value)
                except ValueError as error:
                    raise ConfigError(f"`{row.name}` {error}.") from None
        return settings

    def _check_keywords(self, values: Mapping[str, Any], function: str) -> None:
        for name, value in values.items():
            if name not in self.by_name and name not in self.sections:
                raise ConfigError(
                    f"`{function}` has no keyword `{name}` (found {value!r})."
                    f"{offer(self.suggest(name, 'keyword'))} See `help({function})` for all keywords."
                )
            if name not in self.by_name and value is not None and not self._is_section(name, value):
                raise ConfigError(f"`{name}` must be a mapping such as {self._example_of(name)}, found {value!r}.")

    def check_sections(self, settings: Mapping[str, Any], source: str) -> None:
        """Raise `ConfigError` for a section of nested settings, such as ``model``, that is not a mapping."""
        for name in self.sections:
            if settings.get(name) is not None and not self._is_section(name, settings[name]):
                raise ConfigError(
                    f"{source}: `{name}` must be settings such as {self._example_of(name)}, found {settings[name]!r}."
                )

    def _example_of(self, section: str) -> str:
        return f"{{{next(row.path[1] for row in self.rows if row.path[0] == section)}: ...}}"

    def parse(
        self, record: type[R], settings: Mapping[str, Any], source: str, style: Style, given: Sequence[str] = ()
    ) -> R:
        """Make a record from nested settings. Error messages name the options in ``given`` as the caller typed them.

        Raises `ConfigError` for a field that is missing or wrong; ``source`` says where the other settings are from.
        """
        rows = [row for row in self.rows if row.record is record]
        own = {name: value for name, value in settings.items() if not self._is_of_another(name, record)}
        for row in rows:
            is_missing = row.is_required and look_up(own, row.path) in (None, (), [], "")
            if is_missing and not has_unknown(record, own, row.path):
                raise ConfigError(f"{row.show(style)} is missing. {row.option.hint}".strip())
        labels = {row.path: row.show(style) for row in rows if row.name in given}
        for row in rows:
            if is_blank(look_up(own, row.path)):
                shown = labels.get(row.path) or f"{source}: `{'.'.join(row.path)}`"
                raise ConfigError(f"{shown} {BLANK}")
        return record.parse(own, source, labels)

    def _is_section(self, name: str, value: Any) -> bool:
        return name in self.sections and isinstance(value, Mapping | Record)

    def _is_of_another(self, name: str, record: type[Record]) -> bool:
        owners = {row.record for row in self.rows if row.path[0] == name}
        return bool(owners) and record not in owners


def _read_section(value: Mapping[str, Any] | Record) -> dict[str, Any]:
    return value.model_dump(exclude_unset=True) if isinstance(value, Record) else dict(value)


def find_rows(owner: type[Record], record: type[Record], path: tuple[str, ...] = ()) -> Iterator[OptionRow]:
    """Yield the options among the fields of ``record``, and of the records in its fields, in order."""
    for name, field in record.model_fields.items():
        options = [item for item in field.metadata if isinstance(item, Option)]
        for option in options:
            yield _make_row(option, owner, field, (*path, name))
        if not options and isinstance(field.annotation, type) and issubclass(field.annotation, Record):
            yield from find_rows(owner, field.annotation, (*path, name))


def _make_row(option: Option, owner: type[Record], field: FieldInfo, path: tuple[str, ...]) -> OptionRow:
    if option.key:
        path = (*path, "options", option.key)
    description = option.help or field.description or ""
    limits = [
        f"{word} {value:g}"
        for name, word in LIMITS.items()
        for item in field.metadata
        if (value := getattr(item, name, None)) is not None
    ]
    return OptionRow(
        option=option,
        record=owner,
        path=path,
        type=option.type or _without_none(field.annotation),
        default=None if option.key or field.is_required() else field.get_default(call_default_factory=True),
        is_required=field.is_required(),
        description=" ".join(description.replace("``", "").split()),
        limits=" and ".join(limits),
    )


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation
    kept = [each for each in typing.get_args(annotation) if each is not types.NoneType]
    return kept[0] if len(kept) == 1 else typing.Union[tuple(kept)]  # noqa: UP007  (the types are not known here)


def put(settings: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a copy of ``settings`` with the value at ``path`` set; a text along the path is the name of a plugin."""
    head, *rest = path
    if not rest:
        return {**settings, head: value}
    inner = settings.get(head) or {}
    if isinstance(inner, str):
        inner = read_plugin(inner)
    return {**settings, head: put(inner, rest, value)}


def look_up(settings: Any, path: Sequence[str]) -> Any:
    """The value at ``path`` in nested settings; None if there is none."""
    for step in path:
        settings = settings.get(step) if isinstance(settings, Mapping) else None
    return settings
