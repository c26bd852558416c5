"""Put the real output of every command into pages of the documentation that can be run from an empty folder.

``python scripts/page_output.py docs/tutorial.md`` runs the page and writes what its commands printed below them; of
long output, what matters: the panel with which a search ends, or the first lines.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.helpers.pages import BLOCK, run_page  # noqa: E402

MOST_LINES = 16
"""Lines of output that a page shows of one command."""
WIDTH = 90
"""Characters of a line of output that a page shows, those of `run_page`'s terminal."""
LEFT_OUT = "..."
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def shorten(output: str) -> list[str]:
    """The lines of an output that a page shows."""
    lines = [line.rstrip() for line in ESCAPES.sub("", output).splitlines() if line.strip()]
    lines = [line if len(line) <= WIDTH else f"{line[: WIDTH - 4]} {LEFT_OUT}" for line in lines]
    panel = next((number for number, line in enumerate(lines) if line.startswith("╭")), None)
    if panel is not None:
        return [LEFT_OUT, *lines[panel:]]
    return lines if len(lines) <= MOST_LINES else [*lines[:MOST_LINES], LEFT_OUT]


def fill(text: str, outputs: list[tuple[str, str]]) -> str:
    """The page with new outputs."""
    left = iter(outputs)

    def write(found: re.Match[str]) -> str:
        if found[1] != "console":
            return found[0]
        lines = []
        for command in re.findall(r"^\$ (?:.*\\\n)*.*$", found[2], re.MULTILINE):
            lines += [command, *shorten(next(left)[1])]
        return "```console\n" + "\n".join(lines) + "\n```"

    return BLOCK.sub(write, text)


def main() -> None:
    """Run the pages that are named, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    for page in parser.parse_args().pages:
        text = page.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            outputs = run_page(text, Path(folder))
        page.write_text(fill(text, outputs), encoding="utf-8")
        print(f"{page}: {len(outputs)} commands")


if __name__ == "__main__":
    main()
