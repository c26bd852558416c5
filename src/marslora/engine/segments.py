"""The stretches that members of a pack cross together: which of them go on, and how far.

Members of one `PackSpec` may stand at different points and end at different points. A *segment* is a stretch that some
of them cross together: from the point where they stand to the next one at which a member ends or another is met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from marslora.engine.run_state import RunState


@dataclass(frozen=True)
class Segment:
    """Members that stand at one point and go on together."""

    indices: tuple[int, ...]
    """Which members of the loop."""
    start: int
    """Examples that each of them has seen before the segment."""
    stop: int
    """Examples that each of them has seen after it."""


def next_segment(members: Sequence[RunState], batch_size: int, largest_pack: int) -> Segment | None:
    """The segment to train next; None when every member has ended.

    The members that have seen the fewest examples continue, in whole batches, until one of them ends or they catch up
    with others. A member that ends inside a batch takes its last, smaller step without the others.
    """
    running = [index for index, member in enumerate(members) if member.is_running]
    if not running:
        return None
    start = min(members[index].examples for index in running)
    hindmost = [index for index in running if members[index].examples == start]
    end = min(members[index].spec.until_examples for index in hindmost)
    stop = end // batch_size * batch_size
    if stop <= start:
        stop = end
        hindmost = [index for index in hindmost if members[index].spec.until_examples == end]
    hindmost = hindmost[: _choose_pack_size(len(hindmost), largest_pack)]
    ahead = [members[index].examples for index in running if members[index].examples > start]
    return Segment(tuple(hindmost), start, min([stop, *ahead]))


def _choose_pack_size(count: int, limit: int) -> int:
    """The size of the first pack when ``count`` members are split into the fewest packs of nearly equal size."""
    packs = -(-count // limit)
    return -(-count // packs)
