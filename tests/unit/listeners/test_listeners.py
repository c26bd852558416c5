"""Which listener a call from Python gets, and what a notebook shows."""

import sys
from types import SimpleNamespace

import pytest
from tests.helpers.listeners import RecordingListener

from marslora import listeners
from marslora.core.progress import SilentListener
from marslora.core.runs import ProgressEvent
from marslora.listeners import console, notebook


@pytest.fixture
def shown(monkeypatch):
    """What the cell shows, one text for each update."""
    texts = []
    handle = SimpleNamespace(update=texts.append)

    def display(text, display_id):
        texts.append(text)
        return handle

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=display))
    return texts


def test_progress_is_shown_on_the_error_stream_unless_it_is_not_wanted(capfd):
    with listeners.open_listener() as told:
        assert isinstance(told, console.ConsoleListener)
        told.stage("Reading")
    out, err = capfd.readouterr()
    assert out == "" and "Reading" in err
    with listeners.open_listener(progress=False) as told:
        assert isinstance(told, SilentListener)
    own = RecordingListener()
    with listeners.open_listener(own, progress=False) as told:
        assert told is own


def test_a_notebook_gets_a_listener_of_its_own(monkeypatch):
    monkeypatch.setattr(console, "PlainConsole", lambda stderr: SimpleNamespace(is_jupyter=True))
    with listeners.open_listener() as told:
        assert isinstance(told, notebook.NotebookListener)


def test_a_notebook_shows_stages_bars_and_notes_in_one_place(shown):
    with notebook.NotebookListener() as told:
        told.stage("Calibration <1>")
        told.advance(ProgressEvent(task="final", done=1, total=4, detail="validation loss 0.5"))
        told.advance(ProgressEvent(task="final", done=4, total=4))
        told.note("a row was skipped")
    last = shown[-1]
    assert (
        last.index("Calibration &lt;1&gt;") < last.index("100%, validation loss 0.5") < last.index("a row was skipped")
    )
    assert last.count("<progress") == 1


def test_a_notebook_is_not_updated_for_every_step(shown, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(notebook.time, "monotonic", lambda: now[0])
    told = notebook.NotebookListener()
    told.stage("Calibration")
    for step in range(99):
        now[0] += 0.01
        told.advance(ProgressEvent(task="bar", done=step, total=100))
    assert len(shown) == 2
    now[0] = 10.0
    told.advance(ProgressEvent(task="bar", done=50, total=100))
    assert "50%, 0:09 left" in shown[-1]


def test_a_notebook_says_that_a_search_was_interrupted(shown):
    with pytest.raises(KeyboardInterrupt), notebook.NotebookListener():
        raise KeyboardInterrupt
    assert "Interrupted." in shown[-1]
