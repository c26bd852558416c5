"""A table is what was saved, and nothing else is taken for one."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marslora.core.errors import DataError
from marslora.replay.simulate import Simulation
from marslora.replay.table import RunTable, find_tables
from tests.helpers.toy_tables import RANKS, table


@settings(max_examples=10, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=2, unique=True),
    ranks=st.lists(st.sampled_from(RANKS), min_size=1, max_size=2, unique=True).map(sorted),
    luck=st.floats(0, 0.2),
    has_part_runs=st.booleans(),
    rates=st.sampled_from(((), (1e-3,), (5e-4, 1e-3))),
    factors=st.sampled_from(({}, {"eye": (0.5, 1.0)}, {"eye": (0.5,), "tongue": (1.0, 2.0)})),
)
def test_a_saved_table_is_loaded_as_it_was(tmp_path_factory, seeds, ranks, luck, has_part_runs, rates, factors):
    path = tmp_path_factory.mktemp("tables") / "toy.parquet"
    made = table(seeds=seeds, ranks=ranks, luck=luck, has_part_runs=has_part_runs, rates=rates, factors=factors)
    made.save(path)
    assert RunTable.load(path) == made
    assert [p.name for p in path.parent.iterdir()] == ["toy.parquet"]


def test_rates_that_every_allocation_has_may_be_chosen_though_the_header_does_not_say_so():
    made = table(rates=(5e-4, 1e-3))
    unsaid = RunTable(made.header.model_copy(update={"learning_rates": ()}), made.entries)
    assert unsaid.list_rates() == made.list_rates() == (5e-4, 1e-3)
    lacking = [entry for entry in unsaid if entry.learning_rate == 1e-3 or entry.allocation["eye"] > RANKS[0]]
    assert RunTable(unsaid.header, tuple(lacking)).list_rates() == ()
    assert table().list_rates() == ()
    assert Simulation(unsaid, 0).problem.learning_rates == (5e-4, 1e-3)


def test_a_file_that_is_not_a_table_is_an_error(tmp_path):
    (tmp_path / "a.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read as parquet"):
        RunTable.load(tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet is not a table of finished runs"):
        RunTable.load(tmp_path / "b.parquet")


def test_tables_are_found_in_files_and_folders(tmp_path):
    for name in ("b", "a"):
        table(name, seeds=(0,), ranks=(2,)).save(tmp_path / f"{name}.parquet")
    found = find_tables([tmp_path, tmp_path / "a.parquet"])
    assert [each.header.name for each in found] == ["a", "b"]
    table("a", seeds=(0,), ranks=(2,)).save(tmp_path / "c.parquet")
    with pytest.raises(DataError, match="Several files hold a table with the name a"):
        find_tables([tmp_path])
    with pytest.raises(DataError, match="nowhere does not exist"):
        find_tables([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"There is no \.parquet file"):
        find_tables([tmp_path / "empty"])
