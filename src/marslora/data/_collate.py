"""Collate rows into one batch: texts are padded on the right, pictures are joined along their first axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


def pad_texts(entries: Sequence[Array | None], length: int, value: int) -> Tensor:
    """Entries stacked to (entries, length, ...); what is missing holds ``value``. Later axes are padded too."""
    present = [entry for entry in entries if entry is not None]
    rest = _find_largest_sizes([entry.shape[1:] for entry in present])
    batch = np.full((len(entries), length, *rest), value, dtype=present[0].dtype)
    for index, entry in enumerate(entries):
        if entry is not None:
            batch[index][_corner(entry.shape)] = entry
    return torch.from_numpy(batch)


def join_pictures(entries: Sequence[Array | None], by_row: bool) -> Tensor:
    """Entries joined along the first axis; if later axes differ, smaller entries are padded with zeros.

    A row without pictures (None) becomes one entry of zeros if the array counts rows (``by_row``), else nothing.
    """
    present = [entry for entry in entries if entry is not None]
    rest = _find_largest_sizes([entry.shape[1:] for entry in present])
    lengths = [int(by_row) if entry is None else len(entry) for entry in entries]
    batch = np.zeros((sum(lengths), *rest), dtype=present[0].dtype)
    at = 0
    for entry, length in zip(entries, lengths, strict=True):
        if entry is not None:
            batch[at:][_corner(entry.shape)] = entry
        at += length
    return torch.from_numpy(batch)


def _corner(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(size) for size in shape)


def _find_largest_sizes(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(max(sizes) for sizes in zip(*shapes, strict=True))
