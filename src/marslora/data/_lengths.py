"""Count the tokens of rows: how many the model reads, and how many of them are text."""

from __future__ import annotations

from typing import Any

from marslora.data._example import Example
from marslora.data._process import RowProcessor


class LengthCounter:
    """Counts with a processor. Rows whose pictures and sounds have sizes seen before are not processed again."""

    def __init__(self, processor: Any) -> None:
        self._processor = RowProcessor(processor)
        self._expansions: dict[tuple[Any, ...], int] = {}

    def count_tokens(self, example: Example) -> dict[str, int]:
        """``tokens``, and ``text tokens`` (those of the same conversation without its pictures and sounds).

        Raises `DataError` for a row that the processor or the chat template refuses.
        """
        short = self._processor.count_text_tokens(example.messages)
        if not example.media_digests:
            return {"tokens": short, "text tokens": short}
        sizes = (*(image.size for image in example.images), *(sound.length for sound in example.sounds))
        if sizes not in self._expansions:
            (row,) = self._processor.encode_rows([example], [self._processor.decode_media(example)])
            self._expansions[sizes] = len(row.text["input_ids"]) - short
        bare = [
            {**message, "content": [part for part in message["content"] if part["type"] == "text"]}
            for message in example.messages
        ]
        return {"tokens": short + self._expansions[sizes], "text tokens": self._processor.count_text_tokens(bare)}
