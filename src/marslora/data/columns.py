"""Read another column of the data files, such as ``task``, for examples that were read from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from marslora.core.spec import DataSpec
from marslora.data import _readers
from marslora.data._example import Example


def read_column(
    spec: DataSpec, examples: Sequence[Example], name: str, split: Literal["train", "validation", "test"] = "train"
) -> list[str | None]:
    """The values (as text) of column ``name`` for examples of one split of ``spec``; None for a row without the column.

    The files are read a second time.
    """
    role = "train" if split == "validation" and not spec.validation else split
    sources = {"train": spec.train, "validation": spec.validation, "test": spec.test}[role]
    wanted = {(example.source, example.row) for example in examples}
    value_of = {
        (file.place, number): row[name]
        for source in sources
        for file in _readers.find_files(source, role, allow_outside=spec.allow_outside)
        for number, row in _readers.read_rows(file)
        if isinstance(row, Mapping) and (file.place, number) in wanted and row.get(name) is not None
    }
    values = (value_of.get((example.source, example.row)) for example in examples)
    return [None if value is None else str(value) for value in values]
