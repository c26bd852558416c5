"""Tables of runs that were never trained: a known loss of allocation, examples and seed."""

from __future__ import annotations

from marslora.core.allocation import Allocation, Space
from marslora.replay.table import FinishedRun, RunTable, TableHeader

FULL, ROWS, BATCH = 1600, 800, 16
POINTS = (0, 16, 64, 256, 640, 1088, FULL)
RANKS = (2, 4, 8, 16)
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


def entry(allocation: Allocation, seed: int, *, rows: int = ROWS, until: int = FULL, luck: float = 0.01) -> FinishedRun:
    """One run; it took a second for every 100 examples."""
    examples = (*(t for t in POINTS if t < until), until)
    return FinishedRun(
        allocation=allocation,
        data_examples=rows,
        learning_rate=1e-3,
        seed=seed,
        num_trainable=100 * sum(rank for _, rank in allocation.ranks),
        status="complete",
        examples=examples,
        validation_loss=tuple(loss(allocation, t, seed, luck) for t in examples),
        train_loss=tuple(1.0 for _ in examples[1:]),
        update_norms={part: tuple(0.1 * t for t in examples[1:]) for part, rank in allocation.ranks if rank},
        seconds=until / 100,
        flops=1e6 * until,
        peak_bytes=2**20,
    )


def table(name: str = "toy", seeds=(0, 1), *, has_part_runs: bool = False, luck: float = 0.01, ranks=RANKS) -> RunTable:
    """Every allocation and seed; with part runs, also each part alone on fewer rows, half as long."""
    space = Space.of({"eye": tuple(ranks), "bridge": (4,), "tongue": tuple(ranks)})
    entries = [entry(allocation, seed, luck=luck) for seed in seeds for allocation in space.allocations()]
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
        learning_rate=1e-3,
        seeds=tuple(seeds),
        made_by="a test",
    )
    return RunTable(header, tuple(entries))
