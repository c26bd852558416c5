"""Write docs/data.md: which rows and files are read, what is said of them, and which are refused with which words.

Run: python scripts/data_page.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.corpus import files  # noqa: E402

from marslora.data._media_cache import MediaCache  # noqa: E402
from marslora.data.check import check_data  # noqa: E402
from marslora.data.splits import BadRow, read_example, write_notes  # noqa: E402

PAGE = ROOT / "docs" / "data.md"
CASES = ROOT / "tests" / "corpus" / "rows.jsonl"
_SHOWN = 170
"""Characters of a row that the page shows; long rows are cut."""
HEAD = """# Data: what is read, said and refused

Made by `python scripts/data_page.py` from the rows and files of `tests/corpus`, which the tests hold to what is right.
`marslora data check` and `marslora search` read alike: what one refuses, the other refuses with the same words. What a
row loses or has changed is counted and said. Only what the model's own chat template, tokenizer and processor refuse
needs `data check --model`.

A source is a file, a folder, or a data set on the hub by the name that `datasets` gives it, streamed:
`owner/name@revision:subset#split`, of which all but the name may be left out. A file or folder here of that name comes
first; `hf://datasets/owner/name` always means the hub. A study keeps what it read there first.

Videos (`videos`, `video`, a part `{"type": "video", "video": "a.mp4"}`, or `<video>`) are decoded by PyAV, which the
extra `marslora[video]` installs. The model's own processor chooses the frames; of these at most `--max-frames` (64) are
shown, evenly spread, which is said. Their sound is not read. A video that cannot be decoded to its end, or that
decodes to one colour, is a bad row. `data check` reports the seconds and frames of all videos.
"""


def escape(text: str) -> str:
    """The text as a cell of a table."""
    return text.encode("ascii", "backslashreplace").decode().replace("|", "\\|").replace("\n", " ")


def as_code(text: str) -> str:
    """The text as code in a cell."""
    return f"`` {escape(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...')} ``"


def describe(example: Any, folder: str) -> str:
    """What happens to a row."""
    if isinstance(example, BadRow):
        return f"refused: {example.reason.replace(folder + '/', '').replace(folder, '.')}"
    return "; ".join(["read", *(line.replace("1 row, ", "") for line in write_notes(dict.fromkeys(example.notes, 1)))])


def list_row_lines(folder: Path) -> Iterator[str]:
    """The tables of rows, one for each kind."""
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in CASES.read_text().splitlines():
        case = json.loads(line)
        kinds[case["name"].partition(": ")[0]].append(case)
    for kind, cases in kinds.items():
        yield from ("", f"## Rows: {kind}", "", "| what | row | what happens |", "|---|---|---|")
        for case in cases:
            example = read_example(case["row"], MediaCache(folder), "", 1)
            name = case["name"].partition(": ")[2]
            shown = as_code(name) if set("<[") & set(name) else escape(name)  # a page would take it for a tag or a link
            yield f"| {shown} | {as_code(json.dumps(case['row']))} | {escape(describe(example, str(folder)))} |"


def list_file_lines(folder: Path) -> Iterator[str]:
    """The tables of files: pictures, sounds, files of rows."""
    tables = {"pictures": files.PICTURES, "sounds": files.SOUNDS, "files of rows": files.DATA}
    for kind, table in tables.items():
        yield from ("", f"## Files: {kind}", "", "| file | what happens |", "|---|---|")
        for name, (make, _) in table.items():
            (folder / name).write_bytes(make())
            source = folder / name
            if kind != "files of rows":
                source = folder / "one.jsonl"
                source.write_text(json.dumps({"image" if kind == "pictures" else "audio": name, "text": "x"}))
            report = check_data([str(source)])
            said = [line.replace("1 row, ", "") for line in write_notes(report.notes)]
            refused = [f"refused: {bad.reason.replace(f'{folder}/', '')}" for bad in report.bad[:1]]
            yield f"| `{name}` | {escape('; '.join(refused or ['read', *said]))} |"


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files.write_media(folder)
        PAGE.write_text("\n".join([HEAD.rstrip(), *list_row_lines(folder), *list_file_lines(folder), ""]))


if __name__ == "__main__":
    main()
