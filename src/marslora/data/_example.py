"""One row of any format as an `Example`: turns in one form, every placeholder with its picture or sound."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from marslora.core.errors import DataError
from marslora.data import _formats
from marslora.data._media import RowMedia
from marslora.data._media_cache import MediaCache
from marslora.data._values import describe_value
from marslora.data.pictures import Picture
from marslora.data.sounds import Sound

_TAGS = re.compile("<(image|audio)>")
"""Placeholders inside text."""
_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bot"), "assistant"),
}
"""What data sets call the three roles -> the role."""
Message = dict[str, Any]
"""``{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "..."}]}``. An assistant's turn with
``"learn": False`` is read and not learned."""


@dataclass(frozen=True, eq=False)
class Example:
    """One row in TRL's form, read and checked, not yet encoded. The n-th image part of the messages stands for the n-th
    of ``images``, the n-th audio part for the n-th of ``sounds``."""

    messages: tuple[Message, ...]
    images: tuple[Picture, ...]
    source: str
    row: int
    sounds: tuple[Sound, ...] = ()
    notes: tuple[str, ...] = ()
    """What of the row was not read, or is changed: each is the same text in every row that it holds for."""

    @cached_property
    def digest(self) -> str:
        """Equal text, equal pictures and equal sounds have equal digests, wherever the row comes from."""
        text = json.dumps([self.messages, self.media_digests], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def media_digests(self) -> tuple[str, ...]:
        """The digests of the pictures, then of the sounds."""
        return tuple(medium.digest for medium in self.pictures_and_sounds)

    @property
    def pictures_and_sounds(self) -> tuple[Picture | Sound, ...]:
        """The pictures, then the sounds."""
        return (*self.images, *self.sounds)

    @property
    def place(self) -> str:
        """Where the row is, for messages: ``train.jsonl row 7``."""
        return f"{self.source} row {self.row}"


def to_example(row: Mapping[str, Any], cache: MediaCache, source: str, number: int) -> Example:
    """The row as an `Example`. Raises `DataError` with the reason (without the place) for one that cannot be used."""
    notes: list[str] = []
    media = RowMedia(row)
    messages = [_read_message(turn, media) for turn in _formats.read_turns(dict(row))]
    _check_roles(messages)
    first = next(message for message in messages if message["role"] == "user")
    first["content"] = [*media.take_rest(), *first["content"]]
    images = tuple(cache.get_picture(value, notes) for value in media.get_taken("image"))
    sounds = tuple(cache.get_sound(value, notes) for value in media.get_taken("audio"))
    media_read: tuple[Picture | Sound, ...] = (*images, *sounds)
    for medium in media_read:
        if medium.problem:
            raise DataError(medium.problem)
        notes.extend(medium.notes)
    return Example(tuple(messages), images, source, number, sounds, _intern_notes(notes))


def _intern_notes(notes: list[str]) -> tuple[str, ...]:
    """Each note once; rows with the same notes share one tuple, since many rows have the same."""
    found = tuple(dict.fromkeys(notes))
    return _shared_notes.setdefault(found, found) if len(_shared_notes) < _SHARED else found


_SHARED = 1000
"""Different combinations of notes that are shared at most."""
_shared_notes: dict[tuple[str, ...], tuple[str, ...]] = {}
"""Combinations of notes that rows of this process have. They are few and short."""


def _read_message(turn: Any, media: RowMedia) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(f"a turn must be an object with `role` and `content`, found {describe_value(turn)}")
    if turn.get("role") not in _ROLES:
        raise DataError(
            f"a turn's role must be system, user or assistant, found {turn.get('role')!r}: rename the role or remove "
            "the turn"
        )
    message = {"role": _ROLES[turn["role"]], "content": list(_read_parts(turn.get("content"), media))}
    return message if turn.get("loss") in (None, True, 1) else {**message, "learn": False}


def _read_parts(content: Any, media: RowMedia) -> Iterator[dict[str, str]]:
    """The text, image and audio parts of a turn; what stands for the latter two is taken from ``media``."""
    if isinstance(content, str):
        yield from _split_tags(content, media)
        return
    if not isinstance(content, list | tuple):
        raise DataError(f"a turn's content must be text or a list of parts, found {describe_value(content)}")
    for part in content:
        yield {"type": "text", "text": part} if isinstance(part, str) else _read_part(part, media)


def _read_part(part: Any, media: RowMedia) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind == "text":
        raise DataError(f"a text part must have its text under `text`, found {describe_value(part.get('text'))}")
    if (medium := media.find_medium(kind)) is None:
        raise DataError(
            f"a part of a turn must be text or an image or audio, found the type {kind!r}: remove it, or set its `type`"
        )
    media.take(medium, part)
    return {"type": medium}


def _split_tags(text: str, media: RowMedia) -> Iterator[dict[str, str]]:
    """Text with ``<image>`` and ``<audio>`` tags, cut into parts; a line break next to a tag belongs to the tag."""
    first, *rest = _TAGS.split(text)
    if not rest or first.strip():
        yield {"type": "text", "text": first if not rest else first.rstrip("\n")}
    for medium, piece in zip(rest[::2], rest[1::2], strict=True):
        media.take(medium)
        yield {"type": medium}
        if piece.strip():
            yield {"type": "text", "text": piece.strip("\n")}


def _check_roles(messages: list[Message]) -> None:
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    expected = ["user", "assistant"] * (len(turns) // 2)
    if not turns or turns != expected:
        raise DataError(
            f"turns must alternate user, assistant, user, assistant, ... and end in an answer, found {roles}: join, "
            "reorder or remove turns"
        )
    answers = [message for message in messages if message["role"] == "assistant"]
    if not all(_join_text(message).strip() for message in answers):
        number = next(k for k, message in enumerate(answers, start=1) if not _join_text(message).strip())
        raise DataError(
            f"answer {number} of {len(answers)} (an assistant's turn) has no text to learn: write it or remove the row"
        )
    if not any(message.get("learn", True) for message in answers):
        raise DataError(
            f"all {len(answers)} assistant's turns have `loss` false, so there is no answer to learn: set one to true "
            "or remove the row"
        )


def _join_text(message: Message) -> str:
    return "".join(part.get("text", "") for part in message["content"])
