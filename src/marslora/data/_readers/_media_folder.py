"""A folder of pictures, sounds or videos with a ``metadata`` file, which `datasets` calls an imagefolder, audiofolder
or videofolder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from marslora.data._readers._base import Row

NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""What the metadata file may be called."""
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
"""Endings of pictures."""
_AUDIO = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".m4a"}
"""Endings of sounds."""
_VIDEO = {".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".wmv", ".flv"}
"""Endings of videos."""


def find_metadata_files(path: Path) -> list[Path]:
    """The metadata files in a folder and below."""
    return sorted(file for name in NAMES for file in path.rglob(name))


def convert_row(row: dict[str, Any]) -> Row:
    """A row of metadata with the files of its ``file_name``, ``*_file_name`` and ``*file_names`` columns."""
    media: dict[str, list[str]] = {"images": [], "audios": [], "videos": []}
    rest = {}
    for column, value in row.items():
        if column.endswith(("file_name", "file_names")):
            for name in [value] if isinstance(value, str) else value or ():
                media[find_kind(name) or "images"].append(name)
        else:
            rest[column] = value
    if not any(media.values()):
        return (
            "a row of metadata must name a file under `file_name`, relative to the metadata file; "
            f"found the columns {sorted(row)}"
        )
    return {**rest, **{column: names for column, names in media.items() if names}}


def find_kind(name: str) -> str | None:
    """The column in which a picture, sound or video belongs, by its ending; None for another file."""
    kinds = {"images": _PICTURES, "audios": _AUDIO, "videos": _VIDEO}
    return next((kind for kind, endings in kinds.items() if Path(name).suffix.lower() in endings), None)
