"""How many tokens a model has, which its rows must keep to; it travels with the processor that makes the tokens."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from marslora.core.record import Record


class Vocabulary(Record):
    """The tokens that a model can read."""

    num_rows: int
    """Rows of the embedding: the ids below it are known."""
    placeholders: tuple[int, ...] = ()
    """Ids that stand for pictures and sounds. The model replaces them, so they may lie beyond the embedding."""

    def find_beyond(self, ids: Collection[int]) -> list[int]:
        """The ids that the model cannot read, each once, in increasing order."""
        if max(ids, default=0) < self.num_rows:  # nearly always
            return []
        return sorted({int(each) for each in ids if each >= self.num_rows} - set(self.placeholders))


def note_vocabulary(processor: Any, vocabulary: Vocabulary | None) -> None:
    """Let a processor know the vocabulary of the model that will read its tokens."""
    processor.tokenizer.model_vocabulary = vocabulary


def read_vocabulary(processor: Any) -> Vocabulary | None:
    """The vocabulary of the model that will read a processor's tokens; None if nobody noted it."""
    vocabulary = getattr(getattr(processor, "tokenizer", None), "model_vocabulary", None)
    return vocabulary if isinstance(vocabulary, Vocabulary) else None
