"""Which learning rates a search tries: what a user writes becomes ladders of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from marslora.core.words import read_pairs

AUTO: Literal["auto"] = "auto"
"""What a user writes where the search is to choose."""
RateChoice = float | tuple[float, ...] | Literal["auto"]
"""One learning rate, which is not searched, or a ladder, or `AUTO`."""
PartRate = float | Literal["auto"]
"""The learning rate of one part, or `AUTO`: the search chooses among `PART_FACTORS`."""
SPAN = (0.25, 0.5, 1.0, 2.0, 4.0)
"""The ladder around a learning rate that is known to suit: a factor of four either way, in steps of two."""
PART_FACTORS = (1 / 3, 1.0, 3.0)
"""Learning rates of a part that is searched apart, in those of all others. A convention."""
RATE_AT_4096 = 3e-4
"""Where `find_adamw_rate` starts: the best rate of rank 16, alpha 32, in a model of width 4096. The median of 34
published sweeps of language models is 3.3e-4."""


def find_adamw_rate(width: int, alpha_over_rank: float) -> float:
    """A learning rate that suits AdamW at rank 16: it falls with the roots of the width and of the adapters' scale.

    ``width`` is that of the language model. See Chen, Villar and Hayou, arXiv 2602.06204.
    """
    return RATE_AT_4096 * math.sqrt(4096 / width) * math.sqrt(2 / alpha_over_rank)


def spread_rates(centre: float) -> tuple[float, ...]:
    """The ladder around ``centre``, each rate rounded to two significant digits."""
    return tuple(float(f"{factor * centre:.2g}") for factor in SPAN)


def read_rates(value: object) -> RateChoice:
    """Read a learning rate, a ladder, or `AUTO`, from numbers or words such as ``"5e-4,1e-3,2e-3"``.

    Raises `ValueError` for anything else, for rates that are not above 0, and for a ladder that does not increase.
    """
    if value == AUTO:
        return AUTO
    words = value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else [value]
    try:
        rates = tuple(_read_rate(word) for word in words)
    except ValueError:
        rates = ()
    if not rates:
        example = "a number above 0 such as 1e-3, a ladder such as 5e-4,1e-3,2e-3, or auto"
        raise ValueError(f"must be {example}, found {value!r}")
    if list(rates) != sorted(set(rates)):
        raise ValueError(f"must be a ladder that increases, without repeats, such as 5e-4,1e-3,2e-3, found {value!r}")
    return rates[0] if len(rates) == 1 else rates


def read_part_rates(value: object) -> dict[str, PartRate]:
    """Read learning rates of parts from a mapping, or from words such as ``["vision=1e-4", "projector=auto"]``.

    Raises `ValueError` for anything else, and for rates that are not above 0.
    """
    words = [value] if isinstance(value, str) else value
    if isinstance(words, Sequence) and all(isinstance(word, str) for word in words):
        words = read_pairs(words, "vision=1e-4 or vision=auto")
    if not isinstance(words, Mapping):
        raise ValueError(f"must look like vision=1e-4 or vision=auto, found {value!r}")
    return {str(part): _read_part_rate(str(part), rate) for part, rate in words.items()}


def _read_part_rate(part: str, value: object) -> PartRate:
    try:
        return AUTO if value == AUTO else _read_rate(value)
    except ValueError:
        raise ValueError(
            f"must be a number above 0 or auto for {part}, found {value!r}; rank 0 leaves a part as it is"
        ) from None


def _read_rate(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be a number, found {value!r}")
    rate = float(value)
    if not 0 < rate < math.inf:
        raise ValueError(f"must be above 0, found {value!r}")
    return rate
