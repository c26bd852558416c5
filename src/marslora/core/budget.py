"""How much a search may spend: planned in run equivalents, limited in seconds or floating-point operations.

Only run equivalents can be planned with: what a second buys depends on how long the runs are that it is spent on, since
short ones are mostly validation, and that depends on the plan. So time and operations are limits: a round that would
go beyond them, at the price of what was measured so far, does not begin, and the decision is made on what is there.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from marslora.core.errors import ConfigError
from marslora.core.runs import Cost

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
EXAMPLES = "0.5 (full runs), 90s, 30m, 2h, 1e15flops, or several with commas: 0.5,30m"


@dataclass(frozen=True)
class Limit:
    """What calibration may cost at most; None: no limit."""

    seconds: float | None = None
    """Wall time of all packs, one after the other."""
    flops: float | None = None

    def words(self, spent: Cost, new_examples: int) -> str | None:
        """Why a round of so many new examples may not begin; None where it may.

        Its price is that of the examples so far, whose runs began anew: a round that goes on with them costs less.
        Before anything was measured there is no price, so the first round always begins.
        """
        share = new_examples / spent.examples if spent.examples else 0.0
        for name, most, had in (("seconds", self.seconds, spent.seconds), ("operations", self.flops, spent.flops)):
            if most is not None and spent.examples and had * (1 + share) > most:
                return (
                    f"calibration ends here: it took {had:.3g} {name} and the next round would take about "
                    f"{had * share:.3g} more, beyond the limit of {most:.3g}."
                )
        return None


@dataclass(frozen=True)
class Budget:
    """What was asked for."""

    runs: float | None = None
    """Run equivalents to plan with; None: what the strategy needs."""
    limit: Limit = Limit()

    @classmethod
    def of(cls, value: float | str | None) -> Budget:
        """The budget that a number or words such as ``0.5,30m`` mean. Raises `ConfigError`."""
        if value is None:
            return cls()
        found: dict[str, float] = {}
        for word in str(value).replace(" ", "").split(","):
            unit, amount = _amount(word)
            if unit in found:
                raise ConfigError(f"`budget` names {unit} twice in {value!r}.")
            found[unit] = amount
        return cls(found.get("runs"), Limit(found.get("seconds"), found.get("flops")))


def _amount(word: str) -> tuple[str, float]:
    number, unit = re.fullmatch(r"(.*?)(flops|[smh]?)", word, re.IGNORECASE).groups()  # type: ignore[union-attr]
    try:
        amount = float(number)
    except ValueError:
        amount = math.nan
    if not 0 < amount < math.inf:
        raise ConfigError(f"`budget` must be numbers above 0 such as {EXAMPLES}; found {word!r}.")
    if unit.lower() == "flops":
        return "flops", amount
    return ("seconds", amount * UNITS[unit.lower()]) if unit else ("runs", amount)
