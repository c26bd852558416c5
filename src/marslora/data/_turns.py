"""Turns of any form as messages: who says it, its text and media as parts, and whether it is learned."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from marslora.core.errors import DataError
from marslora.data._keys import check_turn, is_empty
from marslora.data._media import PART_TYPES, RowMedia
from marslora.data._tags import Tag, split_tags
from marslora.data._tools import CALLS_NOTE, read_calls
from marslora.data._values import describe_value

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    "tool": "tool",
    **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bot"), "assistant"),
}
"""What data sets call the roles -> the role."""
_LEARNED = ("loss", "weight", "train")
"""Keys by which ms-swift, OpenAI and Axolotl say whether an answer is learned: true or 1, false or 0."""
_READ = {
    **dict.fromkeys(("system", "user"), ("role", "content", *_LEARNED)),
    "assistant": ("role", "content", "tool_calls", *_LEARNED),
    "tool": ("role", "content", "name", "tool_call_id", *_LEARNED),
}
"""The keys of a turn that are read, by its role."""
_TEXT_TYPES = ("text", "input_text", "output_text")
"""What the `type` of a part of text may be."""
_PARTS_AS_TEXT = re.compile(r"\s*\[\s*\{")
"""How a list of parts begins as JSON text."""
Message = dict[str, Any]
"""``{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "..."}]}``. An assistant's turn with
``"learn": False`` is read and not learned; one with ``tool_calls`` is followed by turns of the role ``tool``. The
first message also holds the ``tools`` of the row."""


def read_messages(turns: Sequence[Any], media: RowMedia, notes: list[str]) -> list[Message]:
    """The turns as messages; neighbours of one role are joined, and what is not read is added to ``notes``.

    Raises `DataError` with the reason if they are no conversation with an answer to learn.
    """
    messages: list[Message] = []
    for turn in turns:
        message = _read_message(turn, media, notes)
        if messages and _can_join(messages[-1], message):
            messages[-1] = {**messages[-1], "content": _join(messages[-1]["content"], message["content"])}
            notes.append("neighbouring turns of one role: joined")
        else:
            messages.append(message)
    _check_roles(messages)
    return messages


def _read_message(turn: Any, media: RowMedia, notes: list[str]) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(f"a turn must be an object with `role` and `content`, found {describe_value(turn)}")
    name = turn.get("role")
    role = _ROLES.get(name) if isinstance(name, str) else None
    check_turn(turn, _READ[role or "user"], notes)
    if role is None:
        raise DataError(
            f"a turn's role must be system, user, assistant or tool, found {describe_value(name)}: rename the role or "
            "remove the turn"
        )
    message: Message = {"role": role, "content": []}
    if role == "assistant" and not is_empty(turn.get("tool_calls")):
        message["tool_calls"] = read_calls(turn["tool_calls"])
        notes.append(CALLS_NOTE)
    if turn.get("content") is not None or "tool_calls" not in message:
        message["content"] = list(_read_parts(turn.get("content"), media, role == "assistant", notes))
    if role == "tool":
        message |= {key: turn[key] for key in ("name", "tool_call_id") if isinstance(turn.get(key), str)}
    is_learned = all(_read_switch(key, turn[key]) for key in _LEARNED if turn.get(key) is not None)
    return message if is_learned or role != "assistant" else {**message, "learn": False}


def _read_switch(key: str, value: Any) -> bool:
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise DataError(f"a turn's `{key}` must be true, false, 1 or 0, found {describe_value(value)}: write one of these")


def _read_parts(content: Any, media: RowMedia, is_answer: bool, notes: list[str]) -> Iterator[dict[str, str]]:
    """The text, image, audio and video parts of a turn; what stands for the latter three is taken from ``media``."""
    if isinstance(content, str):
        _check_parts_as_text(content)
        yield from _split_text(content, media, is_answer)
        return
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list | tuple):
        raise DataError(f"a turn's content must be text or a list of parts, found {describe_value(content)}")
    for part in content:
        text = part if isinstance(part, str) else _read_text(part, notes)
        if text is not None:
            yield from _split_text(text, media, is_answer)
        else:
            yield {"type": media.take_part(part, notes)}


def _check_parts_as_text(content: str) -> None:
    """Raise `DataError` for a list of parts that was stored as JSON text: it would be read as its characters."""
    if not _PARTS_AS_TEXT.match(content):
        return
    try:
        parts = json.loads(content)
    except (ValueError, RecursionError):
        return
    if all(isinstance(part, Mapping) and part.get("type") in (*_TEXT_TYPES, *PART_TYPES) for part in parts):
        raise DataError(
            f"a turn's content is a list of {len(parts)} parts as JSON text: store it as a list, or the whole column "
            "`messages` as JSON text"
        )


def check_questions(messages: Sequence[Message], notes: list[str]) -> None:
    """Note a question that says nothing and shows nothing."""
    for message in messages:
        is_shown = any("text" not in part for part in message["content"])
        if message["role"] == "user" and not is_shown and is_blank("".join(p["text"] for p in message["content"])):
            notes.append("questions without text, picture, sound or video: read as they are")


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: spaces, marks without width, control characters."""
    return not text.strip() or all(each.isspace() or unicodedata.category(each) in ("Cf", "Cc") for each in text)


def _read_text(part: Any, notes: list[str]) -> str | None:
    """The text of a part; None if it is a picture, a sound or a video."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    is_text = kind in _TEXT_TYPES if isinstance(kind, str) else kind is None
    if not is_text or not isinstance(part, Mapping) or (kind is None and "text" not in part):
        return None
    text = part.get("text")
    if not isinstance(text, str):
        raise DataError(f"a text part must have its text under `text`, found {describe_value(text)}")
    notes.extend(
        f"`{key}` of a part: not read" for key in part if key not in ("type", "text") and not is_empty(part[key])
    )
    return text


def _split_text(text: str, media: RowMedia, is_answer: bool) -> Iterator[dict[str, str]]:
    """Text with placeholders, cut into parts; a line break next to a placeholder belongs to it."""
    if not text.isascii():
        _check_characters(text)
    pieces = split_tags(text, is_answer=is_answer, has_media=media.has_any)
    for number, piece in enumerate(pieces):
        if isinstance(piece, Tag):
            media.take_tag(piece)
            yield {"type": piece.medium}
        elif len(pieces) == 1:
            yield {"type": "text", "text": piece}
        elif piece.strip():
            yield {"type": "text", "text": piece.strip("\n") if number else piece.rstrip("\n")}


def _check_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"the text has half a character ({text[error.start]!r} at position {error.start}), which no tokenizer can "
            "read: write the whole character, or remove it"
        ) from None


def _can_join(first: Message, second: Message) -> bool:
    if "tool" in (first["role"], second["role"]) or "tool_calls" in first or "tool_calls" in second:
        return False
    return bool(first["role"] == second["role"] and first.get("learn", True) == second.get("learn", True))


def _join(first: list[dict[str, str]], second: list[dict[str, str]]) -> list[dict[str, str]]:
    """The parts of both turns; two texts that meet are set apart by a line break."""
    if first and second and first[-1]["type"] == second[0]["type"] == "text":
        return [*first[:-1], {"type": "text", "text": f"{first[-1]['text']}\n{second[0]['text']}"}, *second[1:]]
    return [*first, *second]


def _check_roles(messages: list[Message]) -> None:
    roles = [message["role"] for message in messages]
    turns = _drop_calls(messages)
    turns = turns[1:] if turns[:1] == ["system"] else turns
    expected = ["user", "assistant"] * (len(turns) // 2)
    if not turns or turns != expected:
        raise DataError(
            f"turns must alternate user, assistant, user, assistant, ... and end in an answer, found {roles}: join, "
            "reorder or remove turns"
        )
    answers = [message for message in messages if message["role"] == "assistant"]
    learned = [message for message in answers if message.get("learn", True)]
    if not learned:
        raise DataError(
            f"all {len(answers)} assistant's turns have `loss` false or `weight` 0, so there is no answer to learn: "
            "set one to true or remove the row"
        )
    for number, message in enumerate(answers, start=1):
        if (
            message in learned
            and "tool_calls" not in message
            and is_blank("".join(part.get("text", "") for part in message["content"]))
        ):
            raise DataError(
                f"answer {number} of {len(answers)} (an assistant's turn) has no text to learn: write it or remove the "
                "row"
            )


def _drop_calls(messages: list[Message]) -> list[str]:
    """The roles without those answers that call tools, and without what the tools return: both belong to one answer."""
    roles = [message["role"] for message in messages]
    kept = []
    for at, message in enumerate(messages):
        is_call = "tool_calls" in message and roles[at + 1 : at + 2] == ["tool"]
        is_result = (
            message["role"] == "tool" and at > 0 and (roles[at - 1] == "tool" or "tool_calls" in messages[at - 1])
        )
        if not (is_call or is_result):
            kept.append(message["role"])
    return kept
