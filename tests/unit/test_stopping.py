"""Ctrl-C and SIGTERM: a last checkpoint, no process left, and a word on how to go on."""

import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import threading
import time

import pytest
import typer
from rich.console import Console

from marslora.cli import _run
from marslora.core.spec import FinalSpec
from marslora.core.stopping import Terminated, defer_signals, exit_on_termination
from marslora.executors import processes
from marslora.executors.processes import Processes

FAILING = "tests.helpers.failing_training"
PATIENCE_SECONDS = 60


def send(number):
    os.kill(os.getpid(), number)


def interrupt(_event):
    raise KeyboardInterrupt


def make_spec(folder):
    return FinalSpec.model_construct(output_folder=str(folder))


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_waits_for_the_end_of_the_step_and_a_second_one_does_not(number, error):
    before = signal.getsignal(number)
    with defer_signals() as stop:
        assert not stop
        send(number)
        assert stop
        with pytest.raises(error):
            send(number)
    assert signal.getsignal(number) is before
    with pytest.raises(error, match="where to go on"):
        stop.raise_if_asked("where to go on")


def test_sigterm_ends_a_program_with_143_and_only_in_the_block():
    with pytest.raises(Terminated) as raised, exit_on_termination():
        send(signal.SIGTERM)
    assert raised.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_the_program_is_left_alone():
    calls = []
    before = signal.signal(signal.SIGTERM, lambda *_: calls.append(1))
    try:
        with exit_on_termination():
            send(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert calls == [1]


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with defer_signals() as stop:
            send(signal.SIGINT)
            assert not stop
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_touch_no_handler():
    def use():
        with exit_on_termination(), defer_signals() as stop:
            seen.append(bool(stop))

    seen = []
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [False]


def test_workers_write_a_checkpoint_before_they_end(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Processes(num_workers=1).run(f"{FAILING}:train_until_stopped", [make_spec(tmp_path)], interrupt)
    assert (tmp_path / "checkpoint").exists()
    assert multiprocessing.active_children() == []


def test_a_worker_that_does_not_end_is_killed_after_its_grace(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.1)
    with pytest.raises(KeyboardInterrupt):
        Processes(num_workers=1).run(f"{FAILING}:ignore_signals", [make_spec(tmp_path)], interrupt)
    assert multiprocessing.active_children() == []


def start_program(folder):
    code = (
        "from marslora.core.stopping import exit_on_termination\n"
        "from marslora.core.spec import FinalSpec\n"
        "from marslora.executors.processes import Processes\n"
        "if __name__ == '__main__':\n"
        "    with exit_on_termination():\n"
        f"        spec = FinalSpec.model_construct(output_folder={str(folder)!r})\n"
        f"        Processes(num_workers=1).run('{FAILING}:train_until_stopped', [spec], lambda _: None)\n"
    )
    (folder / "program.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    program = subprocess.Popen([sys.executable, str(folder / "program.py")], env=environment)
    wait_until(lambda: any(folder.glob("pid-*")))
    (started,) = folder.glob("pid-*")
    return program, int(started.name.removeprefix("pid-"))


def wait_until(is_so):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_no_worker_outlives_its_program(tmp_path, number, code):
    program, worker = start_program(tmp_path)
    program.send_signal(number)
    assert program.wait(PATIENCE_SECONDS) == code
    wait_until(lambda: is_gone(worker))
    assert (tmp_path / "checkpoint").exists() == (number == signal.SIGTERM)


@pytest.mark.parametrize(
    ("stopped", "code", "word"), [(KeyboardInterrupt(), 130, "Interrupted"), (Terminated(), 143, "Terminated")]
)
def test_the_command_that_continues_can_be_pasted(capsys, monkeypatch, stopped, code, word):
    typed = ["search", "--train", "my rows.jsonl", "--ranks", "2;3"]
    monkeypatch.setattr(sys, "argv", ["/x/marslora/__main__.py", *typed])
    with pytest.raises(typer.Exit) as exited:
        _run.tell_how_to_continue(Console(width=20), "nothing is lost", stopped)
    assert exited.value.exit_code == code
    first, command = capsys.readouterr().out.strip().splitlines()
    assert first.startswith(word)
    words = [sys.executable, "-m", "marslora", *typed]
    assert shlex.split(command) == words


def test_a_program_that_is_not_on_the_path_is_named_in_full(monkeypatch, tmp_path):
    (tmp_path / "marslora").touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "marslora"), "demo"])
    assert _run.command_line() == [str(tmp_path / "marslora"), "demo"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _run.command_line() == ["marslora", "demo"]
