"""Write the rows of a study in the layouts of other training tools, with pictures and sounds by absolute paths."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from marslora.core.errors import DataError
from marslora.core.files import explain_write_errors, open_atomically
from marslora.core.runs import Emit
from marslora.core.spec import RowsSpec
from marslora.data._example import Example
from marslora.data.pictures import Picture
from marslora.data.sounds import Sound
from marslora.data.splits import load_splits

SPLITS = ("train", "validation")
"""The splits that tools train and validate on; test rows stay here."""


def write_rows(spec: RowsSpec, _emit: Emit) -> None:
    """Write ``train.jsonl`` and ``validation.jsonl`` into every folder of ``spec``, in the layout of each.

    What rows hold as bytes goes to ``media_folder``. Raises `DataError` for rows that no layout has, and `WriteError`.
    """
    splits, media = load_splits(spec.data), _Media(Path(spec.media_folder).resolve())
    for folder, layout in spec.folders:
        for split in SPLITS:
            with open_atomically(Path(folder, f"{split}.jsonl")) as file:
                for example in getattr(splits, split):
                    file.write(json.dumps(LAYOUTS[layout](example, media), ensure_ascii=False).encode() + b"\n")


class _Media:
    """Files of pictures and sounds; those that were bytes are written once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written: dict[str, str] = {}

    def locate(self, medium: Picture | Sound) -> str:
        """The absolute path of a picture or a sound."""
        if isinstance(medium.source, Path):
            return str(medium.source.expanduser().resolve())
        if medium.digest not in self._written:
            path = self.folder / f"{medium.digest}{'.png' if isinstance(medium, Picture) else '.wav'}"
            with explain_write_errors(path):
                self._write(medium, path)
            self._written[medium.digest] = str(path)
        return self._written[medium.digest]

    def _write(self, medium: Picture | Sound, path: Path) -> None:
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(medium, Picture):
            medium.open().save(path)
            return
        source: Any = medium.source
        path.write_bytes(source if isinstance(source, bytes) else source.read())


def write_tagged(example: Example, media: _Media) -> dict[str, Any]:
    """A row of LLaMA-Factory and ms-swift: texts with ``<image>`` and ``<audio>``, files in columns of their own."""
    tags = {"image": "<image>", "audio": "<audio>"}
    messages = [
        {
            "role": message["role"],
            "content": "".join(part["text"] if part["type"] == "text" else tags[part["type"]] for part in parts),
            **({} if message.get("learn", True) else {"loss": False}),
        }
        for message, parts in _read(example)
    ]
    columns = {"images": _locate_all(example.images, media), "audios": _locate_all(example.sounds, media)}
    return {"messages": messages, **{name: paths for name, paths in columns.items() if paths}}


def write_parts(example: Example, media: _Media) -> dict[str, Any]:
    """A row of Axolotl: contents as parts, which hold the paths of pictures and sounds themselves."""
    left = {"image": iter(_locate_all(example.images, media)), "audio": iter(_locate_all(example.sounds, media))}

    def write(part: dict[str, str]) -> dict[str, str]:
        kind = part["type"]
        return part if kind == "text" else {"type": kind, "path": next(left[kind])}

    messages = [{"role": message["role"], "content": list(map(write, parts))} for message, parts in _read(example)]
    return {"messages": messages}


def write_prompt(example: Example, media: _Media) -> dict[str, Any]:
    """A row of TRL: a prompt and the last answer as its completion, pictures in a column of their own."""
    messages = [{"role": message["role"], "content": parts} for message, parts in _read(example)]
    return {"prompt": messages[:-1], "completion": messages[-1:], "images": _locate_all(example.images, media)}


LAYOUTS: dict[str, Callable[[Example, _Media], dict[str, Any]]] = {
    "tagged": write_tagged,
    "parts": write_parts,
    "prompt": write_prompt,
}
"""What writes a row, by the name of the layout."""


def _read(example: Example) -> list[tuple[dict[str, Any], Sequence[dict[str, str]]]]:
    kinds = {part["type"] for message in example.messages for part in message.get("content", ())}
    if not kinds <= {"text", "image", "audio"}:
        raise DataError(f"{example.place} has a video, which is not exported. Export without rows (--no-rows).")
    for message in example.messages:
        if message["role"] == "tool" or "tool_calls" in message or "tools" in message:
            raise DataError(
                f"{example.place} calls tools, which every tool of training writes in its own way. Remove such rows "
                "from the copy that is exported, or export without rows (--no-rows)."
            )
    return [(message, message["content"]) for message in example.messages]


def _locate_all(found: Sequence[Picture | Sound], media: _Media) -> list[str]:
    return [media.locate(medium) for medium in found]
