"""What a person sees of a long piece of work."""

import io

from rich.console import Console

from marslora.cli import _console
from marslora.core.progress import ProgressBar
from marslora.core.runs import ProgressEvent


def test_the_latest_losses_stand_in_the_line(monkeypatch):
    monkeypatch.setattr(_console, "LINE_EVERY_SECONDS", 0.0)
    written = io.StringIO()
    with _console.ConsoleListener(Console(file=written, width=120)) as listener:
        bar = ProgressBar({"pack": 80})
        listener.advance(
            bar.advance(ProgressEvent(task="pack", done=40, total=80, detail="lowest validation loss 1.234"))
        )
        listener.advance(ProgressEvent(task="final", done=1, total=2))
    first, second = [line for line in written.getvalue().splitlines() if "%" in line]
    assert first.endswith("calibration: 50%, lowest validation loss 1.234") and second.endswith("final: 50%")


def test_a_bar_keeps_its_losses_until_there_are_newer_ones():
    written = io.StringIO()
    with _console.ConsoleListener(Console(file=written, width=140, force_terminal=True)) as listener:
        listener.advance(ProgressEvent(task="final", done=1, total=2, detail="validation loss 0.5"))
        listener.advance(ProgressEvent(task="final", done=2, total=2))
        listener._progress.refresh()
    assert written.getvalue().rindex("100%") < written.getvalue().rindex("validation loss 0.5")
