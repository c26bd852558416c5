"""Numbers as people read them."""

from __future__ import annotations

import math

from marslora.core.allocation import Allocation
from marslora.core.decision import Interval

NONE = "-"
"""Shown if a number is not known."""
SPACE = "\u00a0"
"""Between a number and its unit: no line breaks there."""


def loss(value: float | None) -> str:
    """A loss in nats per answer token, four significant digits."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.3f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def short(value: float | None) -> str:
    """Any number, three significant digits."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "infinite"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"


def count(value: float | None) -> str:
    """A whole number with thousands separated."""
    return NONE if value is None or not math.isfinite(value) else f"{value:,.0f}"


def compact(value: float | None) -> str:
    """A count in thousands, millions or billions: ``1.2 M``."""
    if value is None or not math.isfinite(value):
        return NONE
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{SPACE}{letter}"
    return f"{value:.0f}"


def percent(value: float | None) -> str:
    """A share as a percentage; the ends of the scale are not rounded to certainty."""
    if value is None or not math.isfinite(value):
        return NONE
    if 0 < value < 0.01:
        return f"<{SPACE}1{SPACE}%"
    if 0.99 < value < 1:
        return f">{SPACE}99{SPACE}%"
    return f"{100 * value:.0f}{SPACE}%"


def accuracy(value: float | None) -> str:
    """A share of answer tokens guessed right, with one decimal."""
    return NONE if value is None or not math.isfinite(value) else f"{100 * value:.1f}{SPACE}%"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    if seconds < 60:
        return f"{seconds:.3g}{SPACE}s"
    if seconds < 5400:
        return f"{seconds / 60:.1f}{SPACE}min"
    return f"{seconds / 3600:,.1f}{SPACE}h"


def size(num_bytes: int) -> str:
    """Bytes as MiB or GiB; a dash if they are not known."""
    if num_bytes <= 0:
        return NONE
    return f"{num_bytes / 2**30:.2g} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"


def shares(equivalents: float) -> str:
    """Return full runs as a number with at most two decimals."""
    return f"{equivalents:,.2f}".rstrip("0").rstrip(".")


def runs(equivalents: float) -> str:
    """Return full runs in words: ``1.36 full runs``."""
    return f"{shares(equivalents)} full run{'' if equivalents == 1 else 's'}"


def between(interval: Interval | None, show: str = "loss") -> str:
    """``1.234 (1.2 to 1.3)``."""
    if interval is None:
        return NONE
    text = loss if show == "loss" else short
    return f"{text(interval.value)} ({text(interval.low)} to {text(interval.high)})"


def ranks(allocation: Allocation, parts: tuple[str, ...] | None = None) -> str:
    """``vision 4, language 16``: the ranks of some parts, by default of all."""
    chosen = allocation.parts if parts is None else parts
    return ", ".join(f"{part} {allocation.get(part)}" for part in chosen)


def plural(number: int, noun: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def listing(items: list[str], joint: str = "and") -> str:
    """``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {joint} {items[-1]}" if items else ""
