"""`marslora bench` replays what it is asked for and writes what it found."""

import pytest
from tests.helpers.toy_tables import table

from marslora.cli import main
from marslora.replay.benchmark import BenchmarkResult


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs the command on two small tables: its exit code, its output, its errors, and its folder."""
    for name in ("toy", "twin"):
        table(name, luck=0.03, ranks=(2, 8, 16)).save(tmp_path / f"{name}.parquet")

    def command(*words):
        monkeypatch.setattr("sys.argv", ["marslora", "bench", str(tmp_path), "--out", str(tmp_path / "out"), *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr(), tmp_path / "out"

    return command


def test_a_bench_prints_standings_and_writes_a_record_and_a_page(run):
    code, said, _, out = run("-s", "grid", "-s", "uniform:rank=8", "--cost", "2", "--cost", "9", "--seeds", "1")
    assert code == 0
    assert "At 2 full runs" in said and "At 9 full runs" in said and "uniform rank=8" in said
    found = BenchmarkResult.load(out / "bench.json")
    assert found.costs == (2.0, 9.0) and {score.seed for score in found.scores} == {1}
    assert {score.max_share for score in found.scores} == {1.0, 0.5, 0.25}
    assert set(found.families) == {"grid", "uniform rank=8", "successive halving, eta 4"}
    assert "uniform rank=8" in (out / "bench.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--max-share", "1.5"), "`--max-share` must be above 0 and at most 1, found 1.5"),
        (("-s", "luck"), "`luck` is not a plugin in marslora.strategies"),
        (("-s", "grid", "--reference", "me"), "`--reference` must be one of ['grid',"),
        (("-s", "grid", "--seeds", "8"), "No table has a run with one of the seeds [8]"),
    ],
)
def test_what_is_asked_wrongly_is_said_in_one_line(run, words, said):
    code, _, errors, out = run(*words)
    assert code == 2 and said in errors and errors.count("\n") == 1 and not out.exists()
