"""Show the progress of a study: on a console, in a notebook, or nowhere."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from marslora.core.progress import Listener, SilentListener


def open_listener(listener: Listener | None = None, *, progress: bool = True) -> AbstractContextManager[Listener]:
    """The listener of a call from Python, to be used in a ``with`` statement.

    That is ``listener`` if it is given. Otherwise, progress is shown below the cell of a notebook (Jupyter, VS Code,
    Colab), on the error stream elsewhere, and nowhere with ``progress=False``.
    """
    if listener is not None or not progress:
        return nullcontext(listener or SilentListener())
    from marslora.listeners.console import ConsoleListener, PlainConsole

    console = PlainConsole(stderr=True)
    if console.is_jupyter:
        from marslora.listeners.notebook import NotebookListener

        return NotebookListener()
    return ConsoleListener(console)
