"""A whole benchmark as one record: what `marslora bench` writes, and what its page is made from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from marslora.core.errors import DataError
from marslora.core.record import Record
from marslora.replay.benchmark import MAX_SHARES, ReplayScore, Searcher, Skipped, hold
from marslora.replay.table import Header, Table

COSTS = (1.15, 1.4)
"""Run equivalents, the final run included, at which families are compared where nothing else is said."""


class BenchmarkResult(Record):
    """Every replay of every entrant, and on what."""

    tables: tuple[Header, ...]
    reference: str
    """The family that others are compared with."""
    costs: tuple[float, ...]
    """Run equivalents, the final run included, at which families are compared."""
    scores: tuple[ReplayScore, ...]
    skipped: tuple[Skipped, ...] = ()
    seconds: float = 0.0
    """Wall time of all replays."""

    @property
    def families(self) -> tuple[str, ...]:
        """In the order in which they were entered."""
        return tuple(dict.fromkeys(score.family for score in self.scores))

    def notes(self) -> list[str]:
        """Who could not take part where, one line for a family and its reason on its first table."""
        where: dict[str, dict[str, str]] = {}
        for each in self.skipped:
            where.setdefault(each.family, {}).setdefault(each.table, each.reason)
        return [
            f"{family} was left out on {', '.join(reasons)}: {next(iter(reasons.values()))}"
            for family, reasons in where.items()
        ]


def find_tables(paths: Sequence[Path]) -> list[Table]:
    """The tables in files and folders, in alphabetical order. Raises `DataError` where there is none."""
    files = [each for path in paths for each in (sorted(path.glob("*.parquet")) if path.is_dir() else [path])]
    if missing := [str(path) for path in files if not path.is_file()]:
        raise DataError(f"{', '.join(missing)} does not exist. Name a table of finished runs, or a folder of them.")
    if not files:
        raise DataError(f"no .parquet file in {', '.join(map(str, paths))}. Name a table of finished runs.")
    tables = [Table.load(path) for path in dict.fromkeys(files)]
    names = [table.header.name for table in tables]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"several files hold a table of the name {', '.join(twice)}. Name each table once.")
    return tables


def bench(
    tables: Sequence[Table],
    entrants: Sequence[Searcher],
    reference: str,
    *,
    costs: Sequence[float] = COSTS,
    max_shares: Sequence[float] = MAX_SHARES,
    seeds: Sequence[int] = (),
    workers: int = 1,
    advance: Callable[[int, int], None] | None = None,
) -> BenchmarkResult:
    """Replay the entrants on the tables; those that ask for runs which a table lacks are left out there, and noted."""
    skipped: list[Skipped] = []
    started = time.monotonic()
    scores = hold(tables, entrants, max_shares, advance, seeds=seeds, workers=workers, skip=skipped.append)
    return BenchmarkResult(
        tables=tuple(table.header for table in tables),
        reference=reference,
        costs=tuple(costs),
        scores=tuple(scores),
        skipped=tuple(skipped),
        seconds=time.monotonic() - started,
    )
