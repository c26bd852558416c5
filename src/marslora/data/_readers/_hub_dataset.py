"""Data sets on the hub, read row by row while they arrive; nothing but the rows that are read is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
from datasets.utils.file_utils import xopen

from marslora.core.data_files import HubSource
from marslora.core.errors import DataError
from marslora.core.hub import explain_unreachable
from marslora.data._readers._base import AbstractSource, NumberedRows
from marslora.data._readers._dataset import ALIASES, DatasetRows

_FORM = "owner/name@revision:subset#split"

_NOWHERE = "hf:"
"""The folder in which relative paths start: rows of others name no files here, unless --image-folder says where."""


def open_hub_dataset(source: HubSource, role: str, place: str) -> AbstractSource:
    """The rows of one split: the one that ``source`` names, or that of the role.

    Raises `DataError`, within seconds if there is no network, if the data set, its revision, its subset or its split
    cannot be read.
    """
    if why := explain_unreachable():
        raise DataError(
            f"`{place}` is neither a file or folder here, nor can the data set of that name be read from the hub: "
            f"{why}. Name a file, or a folder to which `save_to_disk` wrote it where the hub can be reached."
        )
    try:
        values = datasets.load_dataset(source.name, source.subset, revision=source.revision, streaming=True)
    except Exception as error:  # of a hub, a file type or a network, in many ways
        raise DataError(
            f"The data set `{place}` cannot be read from the hub ({type(error).__name__}: {_shorten(error)}). Name it "
            f"as {_FORM}; all but the name may be left out."
        ) from None
    wanted = (source.split,) if source.split is not None else ALIASES[role]
    split = next((name for name in wanted if name in values), None)
    if split is None:
        raise DataError(
            f"The data set `{place}` has no split called `{source.split or role}`; its splits are {sorted(values)}. "
            f"Name one of them as {_FORM}; a part of one is taken with --max-examples."
        )
    return HubRows(values[split], role, place, Path(_NOWHERE) / source.name)


def _shorten(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else text[:397] + "..."


class HubRows(DatasetRows):
    """The rows of a split on the hub; pictures and sounds that lie beside them are fetched with their row."""

    def rows(self) -> NumberedRows:
        """(number from 1 on, row)."""
        for number, row in super().rows():
            yield number, row if isinstance(row, str) else {name: _fetch(value) for name, value in row.items()}


def _fetch(value: Any) -> Any:
    """The value with the content of a file on the hub in the place of its address."""
    if isinstance(value, list):
        return [_fetch(item) for item in value]
    if not isinstance(value, dict):
        return value
    path = value.get("path")
    if set(value) == {"bytes", "path"} and value["bytes"] is None and isinstance(path, str) and "://" in path:
        with xopen(path, "rb") as file:
            return {"bytes": file.read(), "path": path}
    return {key: _fetch(item) for key, item in value.items()}
