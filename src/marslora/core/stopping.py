"""Stop when a signal asks for it: Ctrl-C, or SIGTERM, which Slurm, Kubernetes and spot machines send before they kill.

Outside training a signal raises at once, `KeyboardInterrupt` or `Terminated`. While steps are taken it is only noted
(`defer_signals`), so that the step can end and a checkpoint be written; a second signal raises at once.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

EXIT_INTERRUPTED = 128 + signal.SIGINT
"""The exit code after Ctrl-C."""
EXIT_TERMINATED = 128 + signal.SIGTERM
"""The exit code after SIGTERM: what a shell reports of a process that the signal ended."""


class Terminated(SystemExit):
    """SIGTERM was received. Nobody has to catch it: it ends the process with `EXIT_TERMINATED`."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.code = EXIT_TERMINATED


class Stop:
    """Whether a signal has asked to stop."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __bool__(self) -> bool:
        return self.number is not None

    def ask(self, number: int, _frame: FrameType | None = None) -> None:
        """Note a signal; raise if there was one before."""
        if self:
            raise _make_interruption(number)
        self.number = number

    def raise_if_asked(self, message: str = "") -> None:
        """Raise `KeyboardInterrupt` or `Terminated` with a message if a signal was noted."""
        if self.number is not None:
            raise _make_interruption(self.number, message)


@contextlib.contextmanager
def exit_on_termination() -> Iterator[None]:
    """SIGTERM raises `Terminated` in the block, unless the program has a handler of its own for it."""
    if not _is_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def terminate(*_: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def defer_signals() -> Iterator[Stop]:
    """Note Ctrl-C and SIGTERM in the block instead of raising; a second one raises.

    Only the main thread gets them, and one that is ignored, as by a program in the background, stays ignored.
    """
    stop = Stop()
    if not _is_main_thread():
        yield stop
        return
    heard = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop.ask) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _make_interruption(number: int, message: str = "") -> BaseException:
    return Terminated(message) if number == signal.SIGTERM else KeyboardInterrupt(message)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
