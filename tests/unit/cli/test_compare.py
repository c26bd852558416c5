"""What `marslora compare` prints and exits with."""

import sys

import pytest
from tests.helpers.fake_training import INFO

from marslora import cli, pipeline, settings
from marslora.comparison import settings as comparisons
from marslora.comparison import stages
from marslora.core.errors import EXIT_UNSETTLED

FAKES = "tests.helpers.fake_training"


@pytest.fixture(autouse=True)
def _fakes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "PREPARE", f"{FAKES}:prepare")
    for name, work in (("COUNT", "count_parameters"), ("COUNT_FLOPS", "count_row_flops"), ("TRAIN", "train")):
        monkeypatch.setattr(stages, name, f"{FAKES}:{work}")
    monkeypatch.setattr(settings, "check_sources", lambda _: None)
    for module in (settings, comparisons):
        monkeypatch.setattr(module, "describe_model", lambda _: INFO)


def compare(monkeypatch, capsys):
    words = "compare -m m -d a.jsonl --method uniform --method hydralora --seeds 0,1 --examples 512 -o out"
    monkeypatch.setattr(sys, "argv", ["marslora", *words.split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0, capsys.readouterr().out


def test_a_method_that_failed_is_said_first_and_is_no_success(monkeypatch, capsys):
    monkeypatch.setenv("FAKE_FAIL", "hydralora")
    code, printed = compare(monkeypatch, capsys)
    assert code == EXIT_UNSETTLED
    failed = printed.index("1 of 2 methods failed: hydralora. The reasons are below; run the same command again")
    assert failed < printed.index("Only uniform has results") < printed.rindex("OutOfMemoryError: no room")
    monkeypatch.delenv("FAKE_FAIL")
    code, printed = compare(monkeypatch, capsys)
    assert code == 0 and "failed" not in printed
