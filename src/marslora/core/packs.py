"""Group members into packs, which train together, and split them among workers."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from marslora.core.runs import Run
from marslora.core.spec import MemberSpec

Group = tuple[MemberSpec, ...]
WORKER = "MARSLORA_WORKER"
"""The environment variable with a worker's number (from 0), by which workers take turns on the accelerators."""
GPU_SHARE = "MARSLORA_GPU_SHARE"
"""The environment variable with the share of a GPU's memory that a worker may take, if others use the same one."""


def group_members(members: Sequence[MemberSpec], runs: Sequence[Run]) -> list[Group]:
    """Group the members that can share batches: those with equal rows, order, starting point and adapted parts."""
    examples_of = {run.member.id: run.last_examples for run in runs}
    groups: dict[tuple[object, ...], list[MemberSpec]] = defaultdict(list)
    for member in members:
        key = (
            member.data_examples,
            member.order_seed,
            examples_of.get(member.id, 0),
            frozenset(member.allocation.active),
        )
        groups[key].append(member)
    return [tuple(group) for group in groups.values()]


def split_groups(groups: Sequence[Group], num_workers: int) -> list[Group]:
    """Split groups so that every worker gets one; a member's result does not depend on the others in its pack."""
    share = sum(map(len, groups)) / num_workers
    pieces = [min(math.ceil(len(group) / share), len(group)) for group in groups]
    return [group[first::num] for group, num in zip(groups, pieces, strict=True) for first in range(num)]


def describe_members(members: Sequence[MemberSpec]) -> str:
    """Describe members by their purposes, e.g. ``8 x convergence of vision, 4 x candidate run``."""
    counts = Counter(member.purpose or "measurement" for member in members)
    return ", ".join(f"{count} x {purpose}" for purpose, count in counts.items())
