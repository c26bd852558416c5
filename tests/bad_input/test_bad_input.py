"""What people type, call and write by mistake: each ends with one line that says what is wrong, before weights and rows
are read, and leaves nothing behind.

`commands.jsonl` holds command lines, `calls.jsonl` calls of the Python API, `configurations.jsonl` files for
``--config``; ``says`` is the line, in which ``...`` stands for anything. Where ``late`` is true, only reading the
weights or the rows can show what is wrong.
"""

import contextlib
import functools
import io
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from torch.nn import Linear

import marslora
from marslora import cli, pipeline, settings
from marslora.comparison import settings as comparisons
from marslora.core.errors import EXIT_CODE, MarsloraError
from marslora.executors.inline import Inline
from tests.bad_input.world import build_world

READ, REFUSE = pipeline.PREPARE, "tests.bad_input.world:refuse_to_read"
NAMES = {name: getattr(marslora, name) for name in ("search", "compare", "inspect", "attach")}
DESCRIBE = functools.cache(settings.describe_model)
"""Most cases have the same model."""
MOST_CHARACTERS = 1500


def read_cases(name):
    return [json.loads(line) for line in Path(__file__).with_name(name).read_text().splitlines()]


COMMANDS, CALLS = read_cases("commands.jsonl"), read_cases("calls.jsonl")
CONFIGURATIONS = read_cases("configurations.jsonl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("world")
    build_world(made)
    (made / "settings.yaml").touch()
    return made


@pytest.fixture(autouse=True)
def _in_the_world(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(settings, "describe_model", DESCRIBE)
    monkeypatch.setattr(comparisons, "describe_model", DESCRIBE)


def list_files(folder):
    return {os.path.join(place, name) for place, folders, files in os.walk(folder) for name in (*folders, *files)}


def run_command(words):
    """(exit code, error stream) of a command in this process; what it raises besides `SystemExit` is raised."""
    sys.argv = ["marslora", *words]
    error = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
        try:
            cli.main()
        except SystemExit as ended:
            return ended.code or 0, error.getvalue()
    raise AssertionError("the command line must end by SystemExit")


def run_call(text):
    """As `run_command`, of a call of the Python API."""
    try:
        value = eval(text, {**NAMES, "Path": Path, "Inline": Inline, "Linear": Linear})
    except MarsloraError as error:
        return EXIT_CODE, f"error: {error}\n"
    return 0, f"returned {value!r}"


def find_faults(case, run, folder, before):
    """What is not as it should be with a case; empty if all is."""
    try:
        code, said = run()
    except BaseException as error:
        return f"a traceback: {type(error).__name__}: {error}"
    left = {path for path in list_files(folder) - before if "__pycache__" not in path}
    for path in sorted(left, reverse=True):
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    pattern = ".*".join(re.escape(piece) for piece in case["says"].split("..."))
    if code != EXIT_CODE or not said.startswith("error: ") or said.count("\n") != 1 or len(said) > MOST_CHARACTERS:
        return f"exit code {code}, {said[:300]!r}"
    if not re.fullmatch(f"error: {pattern}\n", said.replace(str(folder), "FOLDER")):
        return f"said {said!r}, to be {case['says']!r}"
    return f"left {sorted(left)[:3]}" if left and not case.get("late") else ""


def check(cases, name, make_run, folder, monkeypatch, record_property):
    record_property("injected", len(cases))
    before, faults = list_files(folder), {}
    for case in cases:
        monkeypatch.setattr(pipeline, "PREPARE", READ if case.get("late") else REFUSE)
        if found := find_faults(case, make_run(case), folder, before):
            faults[case[name]] = found
    assert not faults, "\n".join(f"{typed}\n    {found}" for typed, found in faults.items())


@pytest.mark.parametrize("cases", [COMMANDS[::2], pytest.param(COMMANDS[1::2], marks=pytest.mark.slow)], ids=len)
def test_a_wrong_command_line_is_one_line_before_anything_is_read(folder, monkeypatch, record_property, cases):
    monkeypatch.setattr(sys, "argv", sys.argv)
    check(
        cases,
        "words",
        lambda case: lambda: run_command(shlex.split(case["words"])),
        folder,
        monkeypatch,
        record_property,
    )


def test_a_wrong_call_is_an_error_of_one_line_before_anything_is_read(folder, monkeypatch, record_property):
    check(CALLS, "call", lambda case: lambda: run_call(case["call"]), folder, monkeypatch, record_property)


def test_a_wrong_configuration_is_one_line_before_anything_is_read(folder, monkeypatch, record_property):
    monkeypatch.setattr(sys, "argv", sys.argv)

    def make_run(case):
        (folder / "settings.yaml").write_text(case["yaml"])
        words = ["compare", "settings.yaml"] if case.get("compares") else ["search", "--config", "settings.yaml"]
        return lambda: run_command(words)

    check(CONFIGURATIONS, "yaml", make_run, folder, monkeypatch, record_property)


@pytest.mark.parametrize("words", ["--executor kubernetes", "--metric bleu", "--strategy best"])
def test_what_does_not_exist_is_refused_before_the_plan_is_printed(capsys, monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["marslora", *shlex.split(f"search -m m -d rows.jsonl {words}")])
    with pytest.raises(SystemExit):
        cli.main()
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ")


def test_the_corpus_is_large_enough():
    assert len({case["words"] for case in COMMANDS[::2]}) >= 200
    assert len({case["call"] for case in CALLS}) >= 60
    assert len({case["yaml"] for case in CONFIGURATIONS}) >= 50
