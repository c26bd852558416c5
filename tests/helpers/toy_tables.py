"""Tables of runs that were never trained: a known loss of allocation, examples and seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from marslora.core.allocation import Allocation, Space
from marslora.replay.table import FinishedRun, RunTable, TableHeader

FULL, ROWS, BATCH = 1600, 800, 16
POINTS = (0, 16, 64, 256, 640, 1088, FULL)
RANKS = (2, 4, 8, 16)
RATE = 1e-3
NO_RATES: Mapping = MappingProxyType({})
BEST = {"eye": 16, "tongue": 4}


def loss(allocation: Allocation, examples: int, seed: int = 0, luck: float = 0.01) -> float:
    """Falls as a power of the examples, lowest at `BEST`; a seed shifts some allocations a little, from the start."""
    away = sum(
        abs(RANKS.index(rank) - RANKS.index(BEST[part])) if rank else 4
        for part, rank in allocation.ranks
        if part in BEST
    )
    shift = luck * ((7 * seed + 3 * sum(rank for _, rank in allocation.ranks)) % 5 - 2)
    return 0.5 + (0.1 * away + shift + 1.5 * (1 + examples / 60) ** -0.8 if examples else 2.0)


def entry(
    allocation: Allocation,
    seed: int,
    *,
    rows: int = ROWS,
    until: int = FULL,
    luck: float = 0.01,
    rate: float = RATE,
    own_rates: Mapping[str, float] = NO_RATES,
) -> FinishedRun:
    """One run; it took a second for every 100 examples. It ends 0.1 higher at twice or half of `RATE`, and 0.01 lower
    for every part with a rate of its own."""
    shift = 0.1 * abs(math.log2(rate / RATE)) - 0.01 * len(own_rates)
    examples = (*(t for t in POINTS if t < until), until)
    return FinishedRun(
        allocation=allocation,
        data_examples=rows,
        learning_rate=rate,
        part_learning_rates=dict(own_rates),
        seed=seed,
        num_trainable=100 * sum(rank for _, rank in allocation.ranks),
        status="complete",
        examples=examples,
        validation_loss=tuple(loss(allocation, t, seed, luck) + (shift if t else 0.0) for t in examples),
        train_loss=tuple(1.0 for _ in examples[1:]),
        update_norms={part: tuple(0.1 * t for t in examples[1:]) for part, rank in allocation.ranks if rank},
        seconds=until / 100,
        flops=1e6 * until,
        peak_bytes=2**20,
    )


def table(
    name: str = "toy",
    seeds=(0, 1),
    *,
    has_part_runs: bool = False,
    luck: float = 0.01,
    ranks=RANKS,
    rates=(),
    factors: Mapping[str, tuple[float, ...]] = NO_RATES,
) -> RunTable:
    """Every allocation, seed and rate; with part runs, also each part alone on fewer rows, half as long."""
    space = Space.of({"eye": tuple(ranks), "bridge": (4,), "tongue": tuple(ranks)})
    entries = [
        entry(allocation, seed, luck=luck, rate=rate, own_rates=own_rates)
        for seed in seeds
        for allocation in space.allocations()
        for rate in rates or (RATE,)
        for own_rates in _list_own_rates(rate, factors if rates else {})
    ]
    if has_part_runs:
        nothing = Allocation.of(dict.fromkeys(space.parts, 0))
        entries += [
            entry(nothing.replace(**{part: rank}), seed, rows=rows, until=FULL // 2)
            for seed in seeds
            for part in BEST
            for rows, alone in ((ROWS // 32, ranks), (ROWS // 8, ranks[-1:]))
            for rank in alone
        ]
    header = TableHeader(
        name=name,
        description="Made up.",
        space=space,
        num_train=ROWS,
        full_examples=FULL,
        batch_size=BATCH,
        learning_rate=RATE,
        learning_rates=tuple(rates),
        part_rate_factors=dict(factors),
        seeds=tuple(seeds),
        made_by="a test",
    )
    return RunTable(header, tuple(entries))


def _list_own_rates(rate: float, factors: Mapping[str, tuple[float, ...]]) -> Iterator[dict[str, float]]:
    for chosen in itertools.product(*factors.values()):
        yield {part: factor * rate for part, factor in zip(factors, chosen, strict=True) if factor != 1}
