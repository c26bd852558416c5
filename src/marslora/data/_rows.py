"""One row of any layout as an `Example`: turns in one form, every placeholder with its picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from marslora.core.errors import DataError
from marslora.data import _formats
from marslora.data.pictures import Album, Picture

TAG = "<image>"
_ROLES = {
    **dict.fromkeys(("system",), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bot"), "assistant"),
}
Message = dict[str, Any]
"""``{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "..."}]}``"""


@dataclass(frozen=True, eq=False)
class Example:
    """One row in TRL's form. The n-th image part of the messages stands for the n-th of ``images``."""

    messages: tuple[Message, ...]
    images: tuple[Picture, ...]
    source: str
    row: int

    @cached_property
    def digest(self) -> str:
        """Equal text and equal pictures have equal digests, wherever the row comes from."""
        text = json.dumps([self.messages, [image.digest for image in self.images]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def where(self) -> str:
        """The row's place, for messages: ``train.jsonl row 7``."""
        return f"{self.source} row {self.row}"


def to_example(row: Mapping[str, Any], album: Album, source: str, number: int) -> Example:
    """The row as an `Example`; `DataError` with the reason (without the place) for one that cannot be used."""
    column = list(_image_column(row))
    values = iter(column)
    used: list[Any] = []
    messages = [_message(turn, values, used) for turn in _formats.turns(dict(row))]
    _check_roles(messages)
    if column and not used:
        _put_first(messages, len(column))
        used = column
    elif (unused := sum(1 for _ in values)) > 0:
        raise DataError(f"the text has {len(used)} image placeholders and the row {len(used) + unused} images")
    pictures = tuple(album.picture(value) for value in used)
    for picture in pictures:
        if picture.problem:
            raise DataError(picture.problem)
    return Example(tuple(messages), pictures, source, number)


def _image_column(row: Mapping[str, Any]) -> Iterator[Any]:
    for column in ("images", "image"):
        value = row.get(column)
        if isinstance(value, list | tuple):
            yield from value
        elif value is not None and value != "":
            yield value


def _message(turn: Any, values: Iterator[Any], used: list[Any]) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(f"a turn must be an object with `role` and `content`, found {type(turn).__name__}")
    if turn.get("role") not in _ROLES:
        raise DataError(f"a turn's role must be system, user or assistant, found {turn.get('role')!r}")
    return {"role": _ROLES[turn["role"]], "content": list(_parts(turn.get("content"), values, used))}


def _parts(content: Any, values: Iterator[Any], used: list[Any]) -> Iterator[dict[str, str]]:
    """Text and image parts of a turn; what the image parts stand for is appended to ``used``."""
    if isinstance(content, str):
        yield from _tagged(content, values, used)
        return
    if not isinstance(content, list | tuple):
        raise DataError(f"a turn's content must be text or a list of parts, found {type(content).__name__}")
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str) or kind == "text":
            yield {"type": "text", "text": part if isinstance(part, str) else str(part["text"])}
        elif kind in ("image", "image_url"):
            payload = _payload(part)
            used.append(_next(values, used) if payload is None else payload)
            yield {"type": "image"}
        else:
            raise DataError(f"a part of a turn must be text or an image, found {kind!r}")


def _tagged(text: str, values: Iterator[Any], used: list[Any]) -> Iterator[dict[str, str]]:
    """Text with ``<image>`` tags cut into parts; a line break beside a tag belongs to the tag."""
    first, *rest = text.split(TAG)
    if not rest or first.strip():
        yield {"type": "text", "text": first if not rest else first.rstrip("\n")}
    for piece in rest:
        used.append(_next(values, used))
        yield {"type": "image"}
        if piece.strip():
            yield {"type": "text", "text": piece.strip("\n")}


def _payload(part: Mapping[str, Any]) -> Any:
    for key in ("image_url", "image", "bytes", "path", "url", "base64"):
        value = part.get(key)
        if value is not None:
            return {"base64": value} if key == "base64" else value
    return None


def _next(values: Iterator[Any], used: list[Any]) -> Any:
    for value in values:
        return value
    raise DataError(f"the text has more image placeholders than the row has images ({len(used)})")


def _put_first(messages: list[Message], num_images: int) -> None:
    """Pictures without a placeholder stand before the first question, as TRL puts them."""
    first = next(message for message in messages if message["role"] == "user")
    first["content"] = [{"type": "image"}] * num_images + first["content"]


def _check_roles(messages: list[Message]) -> None:
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    expected = ["user", "assistant"] * (len(turns) // 2)
    if not turns or turns != expected:
        raise DataError(f"turns must go user, assistant, user, assistant, ... and end in an answer, found {roles}")
    for message in messages:
        if message["role"] == "assistant" and not _text(message).strip():
            raise DataError("an assistant's turn has no text: there is no answer to learn")


def _text(message: Message) -> str:
    return "".join(part.get("text", "") for part in message["content"])
