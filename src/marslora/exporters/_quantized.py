"""A base in 4 or 8 bits as other tools are told it. All of them quantise with bitsandbytes, as is done here."""

from __future__ import annotations

from typing import Any

from marslora.exporters._settings import Settings

HEAD = "lm_head"
"""The output head, which nobody quantises."""
BITS = {"nf4": 4, "int8": 8}
"""The bits of a number."""


def count_bits(settings: Settings) -> int | None:
    """The bits of a number of the language model; None if it is not quantised."""
    method = settings.training.quantize
    return None if method is None else BITS[method]


def bitsandbytes_keywords(settings: Settings) -> dict[str, Any]:
    """Keyword arguments of `transformers.BitsAndBytesConfig`, without the dtype of products; {} if not quantised."""
    bits, skipped = count_bits(settings), [*settings.outside_language, HEAD]
    if bits is None:
        return {}
    if bits == 8:
        return {"load_in_8bit": True, "llm_int8_skip_modules": skipped}
    four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    return {"load_in_4bit": True, **four, "llm_int8_skip_modules": skipped}


def quantized_note(settings: Settings, *more: str) -> list[str]:
    """A line that says how the base is held, with ``more``; none if it is not quantised."""
    bits = count_bits(settings)
    return [] if bits is None else [f"The language model is held in {bits} bits ({settings.training.quantize}).", *more]
