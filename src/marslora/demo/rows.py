"""Scenes with questions as rows: conversations about one picture, in the form TRL and `datasets` read."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from marslora.demo.questions import Turn

_PART = pa.struct([("type", pa.string()), ("text", pa.string())])
SCHEMA = pa.schema(
    [
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(_PART))]))),
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
    ]
)


def make_messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """A conversation about one picture, which stands before the first question."""
    said: list[dict[str, Any]] = []
    for question, answer in turns:
        said.append({"role": "user", "content": [{"type": "text", "text": question}]})
        said.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    said[0]["content"].insert(0, {"type": "image", "text": None})
    return said


def encode_png(image_HWC: NDArray[np.uint8]) -> bytes:
    """The picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def write_rows(path: Path, talks: Sequence[Sequence[Turn]], images_NHWC: NDArray[np.uint8]) -> None:
    """Write one parquet file, a row per conversation; the file appears only once it is whole."""
    rows = [
        {"messages": make_messages(turns), "images": [{"bytes": encode_png(image), "path": None}]}
        for turns, image in zip(talks, images_NHWC, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), partial)
    partial.replace(path)
