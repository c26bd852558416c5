"""Who a process is, so that another one can tell later whether it still runs."""

from __future__ import annotations

import os
import socket
from typing import Any

CLOCK_SECONDS = 10.0
"""How far the start of a process may seem to move when the clock of the machine is set."""


def describe_process() -> dict[str, Any]:
    """This process: its host, number and start."""
    import psutil  # type: ignore[import-untyped]

    return {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def is_gone(process: dict[str, Any]) -> bool | None:
    """Whether a process has ended; None if it runs on another machine, where nobody here can see it."""
    import psutil

    if process["host"] != socket.gethostname():
        return None
    try:
        return bool(abs(psutil.Process(process["pid"]).create_time() - process["started"]) > CLOCK_SECONDS)
    except psutil.NoSuchProcess:
        return True
