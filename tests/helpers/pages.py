"""Run what a page shows: the files that its Python blocks name, and the commands of its consoles."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MARK = "<<<next command>>>"
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def find_steps(text: str) -> Iterator[tuple[str, str]]:
    """The files that Python blocks name in their first line, and the commands of console blocks, in order."""
    for kind, block in BLOCK.findall(text):
        joined = re.sub(r"\\\n\s*", "", block)
        if kind == "python":
            yield "file", block
        else:
            yield from (("command", line.removeprefix("$ ")) for line in joined.splitlines() if line.startswith("$ "))


def run_page(text: str, folder: Path, limit_seconds: float | None = None) -> list[tuple[str, str]]:
    """Run a page in an empty folder; each command with what it printed. Raises `AssertionError` if one fails.

    ``marslora`` and ``python`` are those of this process.
    """
    script = [f'marslora() {{ "{sys.executable}" -m marslora "$@"; }}', f'python() {{ "{sys.executable}" "$@"; }}']
    commands = []
    for kind, step in find_steps(text):
        if kind == "file":
            (folder / step.splitlines()[0].removeprefix("# ")).write_text(step)
        else:
            commands.append(step)
            script += [f"echo '{MARK}'", step]
    done = subprocess.run(
        ["bash", "-ec", "\n".join(script)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "90"},
        capture_output=True,
        text=True,
        timeout=limit_seconds,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return list(zip(commands, done.stdout.split(f"{MARK}\n")[1:], strict=True))
