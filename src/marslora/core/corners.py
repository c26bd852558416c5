"""Say where a choice lies at the end of what was searched, beyond which a better one may lie."""

from __future__ import annotations

from collections.abc import Sequence

from marslora.core.allocation import Space
from marslora.core.setting import Setting


def describe_corners(
    setting: Setting, space: Space, learning_rates: Sequence[float], max_rank: int | None = None
) -> tuple[str, ...]:
    """A sentence for each rank that is the largest of its part's ladder (unless it is ``max_rank``, the largest that is
    allowed), and for a learning rate that is the first or the last of those that were searched."""
    said = []
    for part in space.searched:
        ladder, rank = space.ladder(part), setting.allocation.get(part)
        if len(ladder) > 1 and rank == ladder[-1] and rank != max_rank:
            said.append(f"Rank {rank} is the largest of {part}: larger ones (--ranks) may be better.")
    rates = sorted(learning_rates)
    if len(rates) > 1 and setting.learning_rate in (rates[0], rates[-1]):
        end = "low" if setting.learning_rate == rates[0] else "high"
        said.append(
            f"{setting.learning_rate:.2g} is the {end}est learning rate: {end}er ones (--learning-rate) may be better."
        )
    return tuple(said)
