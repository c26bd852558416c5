"""The script that measures on a GPU runs, on tiny models of a CPU, and its numbers are of the right things."""

import json

import pytest
from benchmarks.gpu import measure


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("gpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "WARM", 1)
        patch.setattr(measure, "TIMED", 1)
        measure.main([str(out), "--dry-run"])
    return json.loads((out / "gpu.json").read_text())


def test_members_of_a_pack_are_what_peft_trains(found):
    exact, single, half = found["twins"]
    assert exact["dtype"] == "float64" and max(exact["weights"], exact["losses"]) < 1e-9
    assert max(single["weights"], single["losses"]) < 1e-3 and half["losses"] < 0.02


def test_every_row_has_a_time_and_a_use_or_says_why_not(found):
    rows = [row for row in found["speed"] if row["dtype"] == "bfloat16"]
    assert [(row["batch"], row["members"]) for row in rows] == [(8, 1), (8, 4)]
    for row in rows:
        assert row["ms"] > 0 and 0 < row["use"] < 1
        assert row["times_peft"] == pytest.approx(row["members"] * row["peft_ms"] / row["ms"], rel=0.1)
    said = [row["why"] for row in found.get("left_out", [])]
    assert all(said) and found["demo"] == [{"left_out": "a dry run"}]


def test_what_there_is_no_time_for_is_listed(tmp_path):
    report = measure.Report(tmp_path / "gpu.json", seconds=0.0, dry=True)
    report.record["product_operations_per_second"] = 1.0
    measure.measure_speed(report, measure.torch.device("cpu"), ("tiny",), 0.0)
    assert {row["why"] for row in report.record["left_out"]} >= {"no time left"}


def test_without_a_gpu_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        measure.main([str(tmp_path)])
    assert "add --dry-run" in capsys.readouterr().err
