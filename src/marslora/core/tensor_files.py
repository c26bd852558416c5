"""The headers of safetensors: the names, types and places of tensors, without reading a weight and without torch."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

MOST_HEADER_BYTES = 100_000_000
"""The longest header that the `safetensors` library reads."""


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """``{name: {"dtype", "shape", "data_offsets"}}`` of the tensors of a file.

    Raises `ValueError` with the reason if the file is not whole: its size must be the one that its header announces.
    """
    found = path.stat().st_size
    with path.open("rb") as file:
        beginning = file.read(8)
        size = struct.unpack("<Q", beginning)[0] if len(beginning) == 8 else None
        if size is None or size > min(found, MOST_HEADER_BYTES):
            raise ValueError(f"{path.name} ({found:,} bytes) does not begin as safetensors do")
        text = file.read(size)
    try:
        header = json.loads(text)
        tensors = {name: dict(value) for name, value in header.items() if name != "__metadata__"}
        ends = [int(value["data_offsets"][1]) for value in tensors.values()]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise ValueError(f"the header of {path.name} ({found:,} bytes) cannot be read") from None
    announced = 8 + size + max(ends, default=0)
    if found != announced:
        raise ValueError(f"{path.name} has {found:,} bytes where its header announces {announced:,}")
    return tensors
