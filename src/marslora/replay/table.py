"""A table of finished runs: every allocation of a space, every seed, whole curves, stored as one parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marslora.core.allocation import Allocation, Space
from marslora.core.errors import DataError
from marslora.core.files import open_atomically
from marslora.core.record import Record
from marslora.core.setting import Setting

METADATA_KEY = b"marslora.table"
"""Key of the header in the metadata of the parquet schema."""


class FinishedRun(Record):
    """One finished run: what was trained, and everything that was measured."""

    allocation: Allocation
    data_examples: int
    """Training rows it cycled through."""
    learning_rate: float
    part_learning_rates: dict[str, float] = {}
    """Learning rates of single parts that differ from it."""
    seed: int
    num_trainable: int
    status: str
    examples: tuple[int, ...]
    """Examples seen at each validation point; the first is 0."""
    validation_loss: tuple[float, ...]
    """Mean nats per answer token at those points."""
    validation_accuracy: tuple[float, ...] = ()
    train_loss: tuple[float, ...] = ()
    """Mean since the point before; one fewer than ``examples``."""
    update_norms: dict[str, tuple[float, ...]] = {}
    """Norm of each part's last update at the points after the first."""
    seconds: float = 0.0
    """The run's share of the wall time of its pack."""
    flops: float = 0.0
    peak_bytes: int = 0

    @property
    def setting(self) -> Setting:
        """The ranks and the learning rates."""
        own = tuple(self.part_learning_rates.items())
        return Setting(allocation=self.allocation, learning_rate=self.learning_rate, part_learning_rates=own)


class TableHeader(Record):
    """What all runs of a table have in common."""

    name: str
    description: str
    space: Space
    """The candidates: every allocation of the space has runs on ``num_train`` rows."""
    num_train: int
    full_examples: int
    """Examples seen by a full run."""
    batch_size: int
    learning_rate: float
    """That of every run, or the middle one if there are several."""
    learning_rates: tuple[float, ...] = ()
    """Learning rates at which every allocation was trained, increasing; empty: the one above."""
    part_rate_factors: dict[str, tuple[float, ...]] = {}
    """Parts whose learning rate differs: the factors on that of the others."""
    num_validation: int = 0
    """Rows of each validation; 0 if unknown, in older tables."""
    seeds: tuple[int, ...]
    made_by: str
    """The command that wrote the table."""
    versions: dict[str, str] = {}
    device: str = ""


@dataclass(frozen=True)
class RunTable:
    """A header and its runs."""

    header: TableHeader
    entries: tuple[FinishedRun, ...]

    def __iter__(self) -> Iterator[FinishedRun]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def list_rates(self) -> tuple[float, ...]:
        """The learning rates that may be chosen, increasing: those of the header, or those of every allocation.

        Empty if there is one: then the learning rate is not searched.
        """
        if self.header.learning_rates:
            return self.header.learning_rates
        full = [entry for entry in self.entries if entry.data_examples == self.header.num_train]
        rates = {allocation: set[float]() for allocation in self.header.space.allocations() if allocation.active}
        for entry in full:
            rates.get(entry.allocation, set()).add(entry.learning_rate)
        common = sorted(set.intersection(*rates.values())) if rates else []
        return tuple(common) if len(common) > 1 else ()

    def index_runs(self) -> dict[tuple[Setting, int, int], FinishedRun]:
        """Every run by setting, rows and seed."""
        return {(entry.setting, entry.data_examples, entry.seed): entry for entry in self.entries}

    def save(self, path: Path) -> None:
        """Write the table as parquet, the header as metadata of its schema."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [_flatten(entry) for entry in self.entries]
        columns = dict.fromkeys(name for row in rows for name in row)  # pyarrow would take those of the first row
        filled = [{name: row.get(name) for name in columns} for row in rows]
        table = pa.Table.from_pylist(filled).replace_schema_metadata({METADATA_KEY: self.header.model_dump_json()})
        with open_atomically(path) as file:
            pq.write_table(table, file, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> RunTable:
        """The table in a parquet file; `DataError` if the file holds no table of finished runs."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{path} cannot be read as parquet ({error}). Name a table of finished runs.") from None
        header = (table.schema.metadata or {}).get(METADATA_KEY)
        if header is None:
            raise DataError(
                f"{path} is not a table of finished runs: the metadata of its schema has no {METADATA_KEY.decode()!r}. "
                "Name a file that `RunTable.save` wrote."
            )
        return cls(TableHeader.parse(json.loads(header), str(path)), tuple(_read_rows(table.to_pylist(), str(path))))


def find_tables(paths: Sequence[Path]) -> list[RunTable]:
    """The tables in files and folders, each folder in alphabetical order; `DataError` if there is none."""
    files = [each for path in paths for each in (sorted(path.glob("*.parquet")) if path.is_dir() else [path])]
    if missing := [str(path) for path in files if not path.is_file()]:
        raise DataError(f"{', '.join(missing)} does not exist. Name a table of finished runs, or a folder of them.")
    if not files:
        raise DataError(f"There is no .parquet file in {', '.join(map(str, paths))}. Name a table of finished runs.")
    tables = [RunTable.load(path) for path in dict.fromkeys(files)]
    names = [table.header.name for table in tables]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"Several files hold a table with the name {', '.join(twice)}. Name each table once.")
    return tables


def _flatten(entry: FinishedRun) -> dict[str, Any]:
    """A row, with ranks and update norms in columns of their own, so that any reader of parquet can plot them."""
    values = entry.model_dump(mode="json")
    ranks, norms = values.pop("allocation"), values.pop("update_norms")
    own_rates = values.pop("part_learning_rates")
    return {
        **{f"rank.{part}": rank for part, rank in ranks.items()},
        **{f"learning_rate.{part}": rate for part, rate in own_rates.items()},
        **values,
        **{f"update_norm.{part}": curve for part, curve in norms.items()},
    }


def _read_rows(rows: Iterable[Mapping[str, Any]], source: str) -> Iterator[FinishedRun]:
    for row in rows:
        ranks = {name.removeprefix("rank."): rank for name, rank in row.items() if name.startswith("rank.")}
        norms = {
            name.removeprefix("update_norm."): curve
            for name, curve in row.items()
            if name.startswith("update_norm.") and curve is not None
        }
        own_rates = {
            name.removeprefix("learning_rate."): rate
            for name, rate in row.items()
            if name.startswith("learning_rate.") and rate is not None
        }
        plain = {name: value for name, value in row.items() if "." not in name}
        nested = {"allocation": ranks, "update_norms": norms, "part_learning_rates": own_rates}
        yield FinishedRun.parse({**plain, **nested}, source)
