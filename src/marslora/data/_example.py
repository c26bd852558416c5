"""One row of any format as an `Example`: turns in one form, every placeholder with its picture, sound or video."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from marslora.core.errors import DataError
from marslora.data import _formats
from marslora.data._keys import ReadRow, check_columns, check_unread, is_empty
from marslora.data._media import RowMedia
from marslora.data._media_cache import MediaCache
from marslora.data._tags import check_unmarked
from marslora.data._tools import CALLS_NOTE, read_tools
from marslora.data._turns import Message as Message
from marslora.data._turns import check_questions, read_messages
from marslora.data.pictures import Picture
from marslora.data.sounds import Sound
from marslora.data.videos import Video

Medium = Picture | Sound | Video


@dataclass(frozen=True, eq=False)
class Example:
    """One row in TRL's form, read and checked, not yet encoded. The n-th image part of the messages stands for the n-th
    of ``images``, the n-th audio part for the n-th of ``sounds``,
    the n-th video part for the n-th of ``videos``."""

    messages: tuple[Message, ...]
    images: tuple[Picture, ...]
    source: str
    row: int
    sounds: tuple[Sound, ...] = ()
    videos: tuple[Video, ...] = ()
    notes: tuple[str, ...] = ()
    """What of the row was not read, or is changed: each is the same text in every row that it holds for."""

    @cached_property
    def digest(self) -> str:
        """Equal text and equal pictures, sounds and videos have equal digests, wherever the row comes from."""
        text = json.dumps([self.messages, self.media_digests], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def media_digests(self) -> tuple[str, ...]:
        """The digests of the pictures, then of the sounds, then of the videos."""
        return tuple(medium.digest for medium in self.media)

    @property
    def media(self) -> tuple[Medium, ...]:
        """The pictures, then the sounds, then the videos."""
        return (*self.images, *self.sounds, *self.videos)

    @property
    def place(self) -> str:
        """Where the row is, for messages: ``train.jsonl row 7``."""
        return f"{self.source} row {self.row}"


def to_example(row: Mapping[str, Any], cache: MediaCache, source: str, number: int) -> Example:
    """The row as an `Example`. Raises `DataError` with the reason (without the place) for one that cannot be used."""
    notes: list[str] = []
    read = ReadRow(row)
    check_columns(read)
    media = RowMedia(read)
    turns = _formats.read_turns(read)
    media.look_at(turns)
    messages = read_messages(turns, media, notes)
    first = next(message for message in messages if message["role"] == "user")
    if rest := media.take_rest():
        _check_unmarked(messages)
        first["content"] = [*rest, *first["content"]]
    check_questions(messages, notes)
    if not is_empty(tools := read.get("tools")):
        messages[0]["tools"] = read_tools(tools)
        notes.append(CALLS_NOTE)
    check_unread(read, has_media=media.has_any)
    notes += [f"`{column}`: not read" for column in read.list_unread()]
    images = tuple(cache.get_picture(value, notes) for value in media.get_taken("image"))
    sounds = tuple(cache.get_sound(value, notes) for value in media.get_taken("audio"))
    videos = tuple(cache.get_video(value, notes) for value in media.get_taken("video"))
    example = Example(tuple(messages), images, source, number, sounds, videos)
    for medium in example.media:
        if medium.problem:
            raise DataError(medium.problem)
        notes.extend(medium.notes)
    return replace(example, notes=_intern_notes(notes))


def _check_unmarked(messages: list[Message]) -> None:
    for message in messages:
        if message["role"] in ("system", "user"):
            for part in message["content"]:
                check_unmarked(part.get("text", ""))


def _intern_notes(notes: list[str]) -> tuple[str, ...]:
    """Each note once; rows with the same notes share one tuple, since many rows have the same."""
    found = tuple(dict.fromkeys(notes))
    return _shared_notes.setdefault(found, found) if len(_shared_notes) < _SHARED else found


_SHARED = 1000
"""Different combinations of notes that are shared at most."""
_shared_notes: dict[tuple[str, ...], tuple[str, ...]] = {}
"""Combinations of notes that rows of this process have. They are few and short."""
