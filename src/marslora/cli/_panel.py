"""Print a few lines in a frame."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from marslora.core.plain_text import escape_controls
from marslora.listeners.console import print_line

_FRAME = 4
"""The number of columns taken by the border and padding of a panel."""


def print_panel(console: Console, title: str, lines: Sequence[str]) -> None:
    """Print lines in a panel; those with a path that does not fit into it are printed unbroken below."""
    lines = [escape_controls(line) for line in lines]
    whole = [line for line in lines if os.sep in line and Text(line).cell_len > console.width - _FRAME]
    framed = [line for line in lines if line not in whole]
    console.print(Panel(Text("\n".join(framed)), title=title, expand=False))
    for line in whole:
        print_line(console, line)
