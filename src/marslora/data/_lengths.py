"""Count the tokens of rows: how many the model reads, and how many of them are text."""

from __future__ import annotations

import contextlib
from typing import Any

from marslora.core.errors import DataError
from marslora.data._example import Example
from marslora.data._process import RowProcessor

_MOST_SIZES = 1 << 14
"""Shapes of media that are remembered, so that memory does not grow with the rows."""


class LengthCounter:
    """Counts with a processor. Rows whose media have shapes seen before are not processed again."""

    def __init__(self, processor: Any) -> None:
        self._processor = RowProcessor(processor)
        self._expansions: dict[tuple[Any, ...], tuple[int, tuple[str, ...]]] = {}

    def count_tokens(self, example: Example) -> tuple[dict[str, int], tuple[str, ...]]:
        """(``tokens`` and ``text tokens``, those of the same conversation without its media; what the
        template left out).

        Raises `DataError` for a row that the processor or the chat template refuses.
        """
        rendered = self._processor.render(example.messages)
        short = self._processor.count_tokens(rendered.text)
        if not example.media:
            return {"tokens": short, "text tokens": short}, rendered.notes
        sizes = tuple(medium.shape for medium in example.media)
        if sizes not in self._expansions:
            media = self._processor.decode_media(example)
            (row,) = self._processor.encode_rows([example], [media])
            cut = tuple(note for video in media.videos for note in video.notes)
            if len(self._expansions) >= _MOST_SIZES:
                del self._expansions[next(iter(self._expansions))]
            self._expansions[sizes] = (len(row.text["input_ids"]) - short, tuple(dict.fromkeys(cut)))
        more, cut = self._expansions[sizes]
        bare = [
            {**message, "content": [part for part in message["content"] if part["type"] == "text"]}
            for message in example.messages
        ]
        text_tokens = short
        with contextlib.suppress(DataError):  # a template may want pictures: the placeholders are few tokens then
            text_tokens = self._processor.count_tokens(self._processor.render(bare).text)
        return {"tokens": short + more, "text tokens": text_tokens}, (*rendered.notes, *cut)
