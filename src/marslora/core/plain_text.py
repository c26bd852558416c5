"""Texts that strangers wrote, made harmless for a terminal."""

from __future__ import annotations

import unicodedata

KEPT = "\n\t"
"""Control characters that only lay a text out."""
REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
"""Characters that make a terminal show a text in another order than it has."""


def escape_controls(text: str) -> str:
    r"""``text`` with every character that could steer a terminal written out, such as ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(_escape(character) for character in text)


def _escape(character: str) -> str:
    is_control = unicodedata.category(character) in ("Cc", "Cs") and character not in KEPT
    return character.encode("unicode_escape").decode() if is_control or character in REORDERING else character
