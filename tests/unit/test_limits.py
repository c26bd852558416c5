"""Limits on what may be chosen come from Python and the command line into the spec."""

import pytest

from marslora import api, settings
from marslora.cli import main, search
from marslora.core.budget import Limit
from marslora.core.spec import PluginSpec
from tests.helpers.fake_training import INFO


@pytest.fixture
def specs(monkeypatch, tmp_path):
    """The specs of the studies that would be run."""
    seen = []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").touch()
    monkeypatch.setattr(settings, "describe_model", lambda _: INFO)
    monkeypatch.setattr(api, "run_study", lambda spec, *_, **__: seen.append(spec))
    monkeypatch.setattr(search, "watch_study", lambda spec, *_, **__: seen.append(spec))
    return seen


def test_limits_in_python(specs):
    api.search(model="m", train="a.jsonl", ranks=(4, 16, 64), max_rank=16, max_parameters=9000)
    api.search(model="m", train="a.jsonl", ranks=(4, 16))
    assert (specs[0].search.max_rank, specs[0].search.max_parameters) == (16, 9000)
    assert specs[0].space == specs[1].space
    assert (specs[1].search.max_rank, specs[1].search.max_parameters) == (None, None)


def test_limits_on_the_command_line(specs, monkeypatch, capsys):
    words = "marslora search --model m --train a.jsonl --ranks 4,16,64 --max-rank 16 --max-parameters 9000"
    monkeypatch.setattr("sys.argv", words.split())
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert (specs[0].search.max_rank, specs[0].search.max_parameters) == (16, 9000)
    assert specs[0].space.ladder("vision") == (4, 16)
    monkeypatch.setattr("sys.argv", [*words.split()[:-4], "--max-rank", "2"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "`max_rank` 2 excludes all ranks of every part, which are [4, 16, 64]" in capsys.readouterr().err


def test_budgets_come_from_everywhere(specs, monkeypatch, tmp_path):
    limits = []

    def note(spec, options, *_):
        specs.append(spec)
        limits.append(options.limit)

    monkeypatch.setattr(api, "run_study", note)
    monkeypatch.setattr(search, "watch_study", note)
    api.search(model="m", train="a.jsonl", ranks=(4, 16), budget="0.3,30m")
    (tmp_path / "c.yaml").write_text("search: {budget: '0.3,30m'}\nranks: [4, 16]\n")
    base = "marslora search --model m --train a.jsonl"
    for words in (f"{base} --ranks 4,16 --budget 0.3,30m", f"{base} --config {tmp_path / 'c.yaml'}"):
        monkeypatch.setattr("sys.argv", words.split())
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    assert [spec.search.budget for spec in specs] == [0.3] * 3
    assert limits == [Limit(seconds=1800)] * 3


def test_a_sweep_needs_no_named_strategy(specs, monkeypatch):
    words = "marslora search --model m --train a.jsonl --ranks 4,16 --sweep 0.25"
    monkeypatch.setattr("sys.argv", words.split())
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert specs[0].search.strategy == PluginSpec(name="mars", options={"sweep": 0.25})
