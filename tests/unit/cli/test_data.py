"""``marslora data check`` as it is typed: exit codes, files, words."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from marslora.cli import app
from marslora.cli._histogram import draw_bars
from marslora.core.errors import ConfigError, DataError

GOOD = {"prompt": "what is it?", "completion": "a cat"}


def run(*words: object):
    return CliRunner().invoke(app, ["data", "check", *map(str, words)])


def lines(path, *rows: object) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(path)


def test_clean_rows_exit_with_zero(tmp_path):
    done = run(lines(tmp_path / "rows.jsonl", GOOD, {**GOOD, "completion": "a dog"}))
    assert done.exit_code == 0
    assert all(word in done.stdout for word in ("rows", "words per row", "50% 5", "bad rows"))


def test_bad_rows_exit_with_one_and_are_written_apart(tmp_path):
    source = lines(tmp_path / "rows.jsonl", GOOD, {"prompt": "?", "completion": ""})
    done = run(source, "--fix", tmp_path / "out")
    assert done.exit_code == 1 and "rows.jsonl row 2: answer 1 of 1 (an assistant's turn) has no text" in done.stdout
    assert f"--train {tmp_path / 'out' / 'good.jsonl'} --image-folder {tmp_path}" in done.stdout
    assert json.loads((tmp_path / "out" / "good.jsonl").read_text()) == GOOD
    assert json.loads((tmp_path / "out" / "bad.jsonl").read_text())["row"] == 2
    assert run(source, "--fix", tmp_path / "out").exception.args[0].startswith("`--fix")


def test_json_is_all_that_stdout_holds(tmp_path):
    done = run(lines(tmp_path / "rows.jsonl", GOOD, GOOD, 3), "--json")
    found = json.loads(done.stdout)
    assert (found["num_rows"], found["num_repeats"], found["bad"][0]["row"]) == (3, 1, 3)


def test_usage_errors_are_errors_of_ours(tmp_path):
    assert isinstance(run(tmp_path / "nowhere.jsonl").exception, DataError)
    source = lines(tmp_path / "rows.jsonl", GOOD)
    assert isinstance(run(source, "--fix", tmp_path).exception, ConfigError)


def test_an_interrupt_writes_nothing(tmp_path, monkeypatch):
    from marslora.data import check

    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "check_data", interrupted)
    done = run(lines(tmp_path / "rows.jsonl", GOOD), "--fix", tmp_path / "out")
    assert done.exit_code == 130 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("counts", [(1,), (0, 5, 1000), (3, 3)])
def test_every_bin_has_a_line_and_every_row_can_be_seen(counts):
    drawn = list(draw_bars(range(len(counts) + 1), counts))
    assert len(drawn) == len(counts)
    for line, count in zip(drawn, counts, strict=True):
        assert line.endswith(f"{count:,}") and (count > 0) == any(ord(mark) >= 0x2588 for mark in line)
