"""Whether every text of a row is found again in what the chat template wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from marslora.core.errors import DataError
from marslora.data._tools import list_words
from marslora.data._turns import Message

_END_OF_THOUGHT = "</think>"
"""Templates of models that think leave out what stands before it in all answers but the last."""


def find_left_out(messages: Sequence[Message], text: str) -> tuple[str, ...]:
    """What of the messages the template left out of ``text``, as notes: system turns, and thoughts of earlier answers.

    Raises `DataError` if the words of a question or an answer are missing.
    """
    return tuple(dict.fromkeys(_list_left_out(messages, text)))


def _list_left_out(messages: Sequence[Message], text: str) -> Iterator[str]:
    for message in messages:
        if missing := next((word for word in list_words(message) if not _is_written(word, text)), None):
            raise DataError(
                f"the chat template leaves out `{missing[:40]}` of the row's tools or calls: change the row or the "
                "template"
            )
        for part in message["content"]:
            words = part.get("text", "").strip()
            if message["role"] == "system" and words and _is_only_in_others(words, message, messages, text):
                yield "system turns: left out by the chat template"
                continue
            if words in text or _is_in(words, text):
                continue
            if message["role"] == "assistant" and _is_in(words.rpartition(_END_OF_THOUGHT)[2], text):
                yield "thoughts of earlier answers: left out by the chat template"
            else:
                raise DataError(
                    f"the chat template leaves out or changes `{words[:40]}` of a turn of the {message['role']}: "
                    "change the row or the template"
                )


def _is_only_in_others(words: str, own: Message, messages: Sequence[Message], text: str) -> bool:
    """Whether the text has the words no more often than the other messages that it holds: they stand nowhere else."""
    sought, written = ("".join(each.split()) for each in (words, text))
    others = (part.get("text", "") for message in messages if message is not own for part in message["content"])
    squeezed = ("".join(each.split()) for each in others)
    held = (each if each in written else each.rpartition(_END_OF_THOUGHT)[2] for each in squeezed)
    return written.count(sought) <= sum(each.count(sought) for each in held)


def _is_in(words: str, text: str) -> bool:
    """Whether the words are in the text, however they are spaced."""
    return "".join(words.split()) in "".join(text.split())


def _is_written(word: str, text: str) -> bool:
    """Whether a word is in the text, as it is or as JSON writes it."""
    return word in text or json.dumps(word)[1:-1] in text or json.dumps(word, ensure_ascii=False)[1:-1] in text
