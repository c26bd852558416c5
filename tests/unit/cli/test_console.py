"""What a person sees of a long piece of work."""

import ast
import io
import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from rich.console import Console
from rich.table import Table

from marslora import cli
from marslora.cli import _panel, _run
from marslora.core.progress import ProgressBar
from marslora.core.runs import ProgressEvent
from marslora.core.spec import StudySpec
from marslora.listeners import console as listening
from marslora.listeners.console import ConsoleListener, PlainConsole, print_line


def test_the_latest_losses_stand_in_the_line(monkeypatch):
    monkeypatch.setattr(listening, "LINE_EVERY_SECONDS", 0.0)
    written = io.StringIO()
    with listening.ConsoleListener(Console(file=written, width=120)) as listener:
        bar = ProgressBar({"pack": 80})
        listener.advance(
            bar.advance(ProgressEvent(task="pack", done=40, total=80, detail="lowest validation loss 1.234"))
        )
        listener.advance(ProgressEvent(task="final", done=1, total=2))
    first, second = [line for line in written.getvalue().splitlines() if "%" in line]
    assert first.endswith("calibration: 50%, lowest validation loss 1.234") and second.endswith("final: 50%")


def test_a_bar_keeps_its_losses_until_there_are_newer_ones():
    written = io.StringIO()
    with listening.ConsoleListener(Console(file=written, width=140, force_terminal=True)) as listener:
        listener.advance(ProgressEvent(task="final", done=1, total=2, detail="validation loss 0.5"))
        listener.advance(ProgressEvent(task="final", done=2, total=2))
        listener._progress.refresh()
    assert written.getvalue().rindex("100%") < written.getvalue().rindex("validation loss 0.5")


LONG = "/tmp" + "/a folder [red]" * 12 + "/with-a-long-name/compare.html"
"""A path of some 200 characters with spaces, and with what `rich` would take for markup."""


def say_how_to_continue(console):
    with pytest.raises(typer.Exit):
        _run.tell_how_to_continue(console, "nothing is lost", KeyboardInterrupt())


def show_settings(console):
    training = SimpleNamespace(
        examples=8, batch_size=8, optimizer=SimpleNamespace(name="adamw"), learning_rate=1e-4, alpha_over_rank=2.0,
        part_learning_rates={},
    )  # fmt: skip
    search = SimpleNamespace(strategy=SimpleNamespace(name="mars"))
    space = SimpleNamespace(ladders=(("language", (4, 16)),))
    spec = SimpleNamespace(
        training=training, model=SimpleNamespace(path=LONG), space=space, search=search, learning_rates=(),
        part_rate_factors={},
    )  # fmt: skip
    _run.show_settings(console, spec, SimpleNamespace(study="study"))


PRINTED = {
    "line": lambda console: listening.print_line(console, (f"wrote {LONG}", "bold")),
    "panel": lambda console: _panel.print_panel(console, "marslora", ["One sentence.", f"Adapter: {LONG} (1 M)"]),
    "stage": lambda console: listening.ConsoleListener(console).stage(f"Reading {LONG}"),
    "note": lambda console: listening.ConsoleListener(console).note(f"{LONG} cannot be read"),
    "progress": lambda console: listening.ConsoleListener(console).advance(ProgressEvent(task=LONG, done=1, total=2)),
    "command to continue": say_how_to_continue,
    "settings": show_settings,
}


@pytest.mark.parametrize(
    ("printed", "is_terminal"),
    [(name, False) for name in PRINTED] + [(name, True) for name in PRINTED if name != "progress"],  # a bar is cut
)
def test_a_path_is_printed_whole_on_a_narrow_console(printed, is_terminal, monkeypatch):
    monkeypatch.setattr(listening, "LINE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(sys, "argv", ["marslora", "search", "--model", LONG])
    written = io.StringIO()
    PRINTED[printed](Console(file=written, width=40, force_terminal=is_terminal, color_system=None))
    wanted = shlex.join(sys.argv) if printed == "command to continue" else LONG
    assert wanted in written.getvalue()


def test_commands_print_text_only_as_whole_lines():
    """Only tables go to a console directly: `rich` would break a long line and read brackets as markup."""
    folder = Path(_panel.__file__).parent
    calls = [
        (path.name, node.lineno, node.args[0])
        for path in folder.glob("*.py")
        if path.name != "_panel.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "print"
    ]
    assert calls
    for name, line, argument in calls:
        assert "table" in ast.unparse(argument), f"{name}:{line} prints text past `print_line`"


def test_the_learning_rates_of_a_search_are_printed_before_it_starts():
    study = StudySpec.parse(
        {
            "model": {"path": "m"},
            "data": {"train": "t"},
            "space": {"vision": [0, 4], "language": [4]},
            "training": {"learning_rate": 1e-3, "part_learning_rates": {"projector": 1e-5}},
            "learning_rates": [5e-4, 1e-3, 2e-3],
            "part_rate_factors": {"vision": [1 / 3, 1, 3]},
        }
    )
    written = io.StringIO()
    _run.show_settings(Console(file=written, width=200), study, SimpleNamespace(study="s"))
    said = "learning rates 0.0005, 0.001, 0.002; projector 1e-05; vision at 0.33, 1, 3 times that\n"
    assert said in written.getvalue()
    assert _run.describe_rates(study.model_copy(update={"learning_rates": (), "part_rate_factors": {}})) == (
        "learning rate 0.001; projector 1e-05"
    )


EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e[bold red]x[/nothing] :warning:"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202e[bold red]x[/nothing] :warning:"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_texts_of_strangers_are_only_shown(is_terminal):
    console = PlainConsole(file=io.StringIO(), force_terminal=is_terminal, color_system=None, width=200)
    table = Table(EVIL, box=None)
    table.add_row(EVIL)
    console.print(table)
    print_line(console, EVIL, (EVIL, "bold"))
    _panel.print_panel(console, "title", [EVIL, "/" * 300 + EVIL])
    with ConsoleListener(console) as listener:
        listener.stage(EVIL)
        listener.note(EVIL)
        listener.advance(ProgressEvent(task=EVIL, done=1, total=2, detail=EVIL))
    printed = console.file.getvalue()
    assert printed.count(SHOWN) >= 8
    assert not any(sign in printed for sign in ("\x1b]", "\x1b[2J\x9b", "\x9b", "\x07", "\u202e"))


@pytest.mark.parametrize("words", [["search", "-m", "m", "-d", EVIL], [EVIL], ["data", "check", EVIL]])
def test_a_path_in_an_error_is_only_shown(monkeypatch, capsys, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["marslora", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and SHOWN in said and not {"\x1b", "\x9b", "\x07", "\u202e"} & set(said)


def test_a_row_in_the_report_of_a_check_is_only_shown(monkeypatch, capsys, tmp_path):
    rows = [{"image": f"{EVIL}.png", "caption": "x"}, {EVIL: 1}, {"image": {"path": EVIL, EVIL: 2}, "caption": "x"}]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.setattr(sys, "argv", ["marslora", "data", "check", str(tmp_path / "rows.jsonl")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr().out
    assert ended.value.code == 1 and printed.count(SHOWN) >= 2
    assert not {"\x1b", "\x9b", "\x07", "\u202e"} & set(printed)
