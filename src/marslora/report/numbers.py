"""Format numbers, ranks and lists as text for people. What is unknown (None or NaN) becomes `NONE`."""

from __future__ import annotations

import math

from marslora.core.allocation import Allocation
from marslora.core.decision import Interval
from marslora.core.setting import Setting

NONE = "-"
"""The text for an unknown number."""
SPACE = "\u00a0"
"""A no-break space, which keeps a number and its unit on one line."""


def format_loss(value: float | None) -> str:
    """A loss in nats per answer token: three decimals, or two significant digits below 0.1."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.3f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def format_number(value: float | None) -> str:
    """Any number with three significant digits, e.g. ``0.125``; from 1,000 on as a whole number, e.g. ``1,234``."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "infinite"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"


def format_count(value: float | None) -> str:
    """A number rounded to a whole one, with thousands separated: ``12,345``."""
    return NONE if value is None or not math.isfinite(value) else f"{value:,.0f}"


def abbreviate_count(value: float | None) -> str:
    """A count abbreviated to thousands, millions or billions with three significant digits: ``1.2 M``."""
    if value is None or not math.isfinite(value):
        return NONE
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{SPACE}{letter}"
    return f"{value:.0f}"


def format_percent(value: float | None) -> str:
    """A share (0 to 1) as a whole percentage; a share near 0 or 1 reads ``< 1 %`` or ``> 99 %``, never 0 or 100."""
    if value is None or not math.isfinite(value):
        return NONE
    if 0 < value < 0.01:
        return f"<{SPACE}1{SPACE}%"
    if 0.99 < value < 1:
        return f">{SPACE}99{SPACE}%"
    return f"{100 * value:.0f}{SPACE}%"


def format_accuracy(value: float | None) -> str:
    """A share (0 to 1) of correctly predicted answer tokens as a percentage with one decimal: ``87.5 %``."""
    return NONE if value is None or not math.isfinite(value) else f"{100 * value:.1f}{SPACE}%"


def format_duration(seconds: float | None) -> str:
    """A duration in seconds (below 60 s), minutes (below 90 min) or hours."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    if seconds < 60:
        return f"{seconds:.3g}{SPACE}s"
    if seconds < 5400:
        return f"{seconds / 60:.1f}{SPACE}min"
    return f"{seconds / 3600:,.1f}{SPACE}h"


def format_bytes(num_bytes: int) -> str:
    """A number of bytes in MiB or GiB; `NONE` for 0, which means unknown."""
    if num_bytes <= 0:
        return NONE
    return f"{num_bytes / 2**30:.2g} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"


def format_run_count(full_runs: float) -> str:
    """A cost in full runs as a bare number with at most two decimals: ``1.36``."""
    return f"{full_runs:,.2f}".rstrip("0").rstrip(".")


def format_full_runs(full_runs: float) -> str:
    """A cost in full runs with its unit: ``1.36 full runs``."""
    return f"{format_run_count(full_runs)} full run{'' if full_runs == 1 else 's'}"


def format_interval(interval: Interval | None) -> str:
    """A loss with its interval, in nats per answer token: ``1.234 (1.200 to 1.300)``."""
    if interval is None:
        return NONE
    return f"{format_loss(interval.value)} ({format_loss(interval.low)} to {format_loss(interval.high)})"


def format_setting(setting: Setting, parts: tuple[str, ...] | None = None) -> str:
    """The ranks of ``parts``, and the rates if they are searched: ``vision 4, language 16, learning rate 0.002``."""
    return ", ".join([format_ranks(setting.allocation, parts), *format_rates(setting)])


def format_rates(setting: Setting) -> list[str]:
    """The rates that are searched, in words: ``["learning rate 0.002", "vision rate 0.0007"]``."""
    rates = [] if setting.learning_rate is None else [f"learning rate {setting.learning_rate:.2g}"]
    return rates + [f"{part} rate {rate:.2g}" for part, rate in setting.part_learning_rates]


def format_ranks(allocation: Allocation, parts: tuple[str, ...] | None = None) -> str:
    """The ranks of ``parts`` (None: of all parts): ``vision 4, language 16``."""
    chosen = allocation.parts if parts is None else parts
    return ", ".join(f"{part} {allocation.get(part)}" for part in chosen)


def pluralise(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless the number is 1: ``1 layer``, ``2 layers``."""
    return f"{format_count(number)} {noun}{'' if number == 1 else 's'}"


def join_words(items: list[str], conjunction: str = "and") -> str:
    """Join items as in a sentence: ``a, b and c``; an empty string for no items."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {conjunction} {items[-1]}" if items else ""
