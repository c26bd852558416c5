"""Write scenes with questions as rows: conversations about one picture, in the form that TRL and `datasets` read."""

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

from marslora.core.files import open_atomically
from marslora.demo.questions import Turn

_PART_TYPE = pa.struct([("type", pa.string()), ("text", pa.string())])
SCHEMA = pa.schema(
    [
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(_PART_TYPE))]))),
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
    ]
)


def make_messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """A conversation about one picture, which comes before the first question."""
    messages: list[dict[str, Any]] = []
    for question, answer in turns:
        messages.append({"role": "user", "content": [{"type": "text", "text": question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    messages[0]["content"].insert(0, {"type": "image", "text": None})
    return messages


def encode_png(image_HWC: NDArray[np.uint8]) -> bytes:
    """The picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def write_rows(path: Path, conversations: Sequence[Sequence[Turn]], images_NHWC: NDArray[np.uint8]) -> None:
    """Write one Parquet file, a row per conversation; the file appears only when it is complete."""
    rows = [
        {"messages": make_messages(turns), "images": [{"bytes": encode_png(image), "path": None}]}
        for turns, image in zip(conversations, images_NHWC, strict=True)
    ]
    with open_atomically(path) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), file)
