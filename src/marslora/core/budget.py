"""How much a search may spend: planned in full runs, limited in seconds or floating-point operations.

A search is planned in full runs only. What a second buys depends on the length of the runs (short ones spend most of it
on validation), and that depends on the plan. Time and operations are therefore limits: a round that would exceed one,
estimated from the cost of the runs so far, does not begin, and the decision is made from the finished runs.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from marslora.core.errors import ConfigError
from marslora.core.runs import Cost

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
"""Seconds in each unit of time that a budget may have."""
EXAMPLES = "0.5 (full runs), 90s, 30m, 2h, 1e15flops, or several with commas: 0.5,30m"
"""Examples of budgets, for error messages."""


@dataclass(frozen=True)
class Limit:
    """The most that calibration may cost; None: no limit."""

    seconds: float | None = None
    """Wall time of all packs, one after the other."""
    flops: float | None = None
    """Floating-point operations of all packs."""

    def __post_init__(self) -> None:
        for name, most in (("seconds", self.seconds), ("flops", self.flops)):
            if most is not None and not most > 0:
                raise ConfigError(f"`{name}` of a limit must be above 0, found {most}. Give a number such as 600.")

    def describe_excess(self, spent: Cost, new_examples: int) -> str | None:
        """Say why a round of ``new_examples`` must not begin; None if it may.

        Its cost is estimated from that of the examples so far. These include runs that started from scratch, so a round
        that continues runs costs less. The first round always begins, since there is nothing to estimate from.
        """
        share = new_examples / spent.examples if spent.examples else 0.0
        for unit, most, used in (("seconds", self.seconds, spent.seconds), ("operations", self.flops, spent.flops)):
            if most is not None and spent.examples and used * (1 + share) > most:
                return (
                    f"calibration ends here: it took {used:.3g} {unit} and the next round would take about "
                    f"{used * share:.3g} more, beyond the limit of {most:.3g}."
                )
        return None


@dataclass(frozen=True)
class Budget:
    """How much a user allows a search to spend."""

    runs: float | None = None
    """Full runs that calibration is planned with; None: as many as the strategy needs."""
    limit: Limit = Limit()
    """Time and operations that calibration may not exceed."""

    @classmethod
    def read(cls, value: float | str | None) -> Budget:
        """Return the budget that a number or words such as ``0.5,30m`` mean. Raises `ConfigError`."""
        if value is None:
            return cls()
        amounts: dict[str, float] = {}
        for word in str(value).replace(" ", "").split(","):
            unit, amount = _read_amount(word)
            if unit in amounts:
                raise ConfigError(f"`budget` names {unit} twice in {value!r}. Give each unit once.")
            amounts[unit] = amount
        return cls(amounts.get("runs"), Limit(amounts.get("seconds"), amounts.get("flops")))


def _read_amount(word: str) -> tuple[str, float]:
    number, unit = re.fullmatch(r"(.*?)(flops|[smh]?)", word, re.IGNORECASE).groups()  # type: ignore[union-attr]
    try:
        amount = float(number)
    except ValueError:
        amount = math.nan
    if not 0 < amount < math.inf:
        raise ConfigError(f"`budget` must be a number above 0 such as {EXAMPLES}; found {word!r}.")
    if unit.lower() == "flops":
        return "flops", amount
    return ("seconds", amount * UNITS[unit.lower()]) if unit else ("runs", amount)
