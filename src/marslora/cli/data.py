"""``marslora data``: check rows before training on them."""

from __future__ import annotations

import os
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from marslora.cli._histogram import draw_bars
from marslora.core.runs import ProgressEvent
from marslora.core.spec import MAX_FRAMES, MAX_PIXELS
from marslora.listeners.console import ConsoleListener, PlainConsole, print_line

if TYPE_CHECKING:
    from marslora.data.check import CheckReport

BAD_ROWS, INTERRUPTED = 1, 130
"""Exit codes: 1 if there are bad rows (as in linters), 130 after Ctrl-C (as in shells)."""
_SHOWN_BAD_ROWS = 100
"""The most bad rows that are printed: a few screens; ``--json`` and ``--fix`` list all of them."""
_MAX_WORKERS = 8
"""The most processes by default: more rarely speed up reading, and each may load a processor."""
app = typer.Typer(
    name="data",
    add_completion=False,
    help="Check rows before training on them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _group() -> None:
    """Check rows before training on them."""


PATHS = typer.Argument(
    help="Files (.jsonl, .json, .csv, .tsv, .tar, .parquet; all but the last also .gz), or folders: with such files, "
    "with pictures, sounds or videos and a metadata file, or saved by `datasets`. FOLDER#NAME names a data set of a "
    "LLaMA-Factory dataset_info.json, owner/name@revision:subset#split a data set on the hub.",
    metavar="PATH...",
    show_default=False,
)
MODEL = typer.Option("--model", "-m", help="Model folder or Hub name. Lengths are then counted in tokens.")
FIX = typer.Option(
    "--fix",
    help="Write good.jsonl (rows exactly as they were) and bad.jsonl (file, row, reason, text) into this new folder. "
    "The sources are not changed.",
    metavar="OUT",
)
FOLDER = typer.Option(
    help="Folder in which relative paths of images, sounds and videos start. Default: the data file's folder."
)
PIXELS = typer.Option(help="Scale larger pictures down to this many pixels, as `marslora search` does.", min=1)
FRAMES = typer.Option(help="Show at most this many frames of a video, as `marslora search` does.", min=1)
OUTSIDE = typer.Option(
    "--allow-outside",
    help="Read pictures and sounds whose path leaves that folder: absolute, with .. or ~, or by a link.",
)
WORKERS = typer.Option(
    help="Number of processes; they start only if checking takes more than a few seconds. Default: the number of "
    "cores, at most 8.",
    min=1,
)
AS_JSON = typer.Option("--json", help="Print the whole report as JSON, with every bad row.")


@app.command()
def check(
    paths: Annotated[list[str], PATHS],
    model: Annotated[str | None, MODEL] = None,
    fix: Annotated[Path | None, FIX] = None,
    image_folder: Annotated[str | None, FOLDER] = None,
    max_pixels: Annotated[int, PIXELS] = MAX_PIXELS,
    max_frames: Annotated[int, FRAMES] = MAX_FRAMES,
    allow_outside: Annotated[bool, OUTSIDE] = False,
    workers: Annotated[int | None, WORKERS] = None,
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Read every row, decode every picture, sound and video, and report counts, lengths and problems.

    Every bad row is listed with its reason: a missing, damaged or truncated picture, turns in the wrong order, no
    answer, more placeholders than pictures, invalid JSON, ...

    Exit code: 0 if all rows are good, 1 if there are bad rows, 2 if nothing could be read.

    Example: marslora data check train.jsonl --model ./llava --fix repaired
    """
    from marslora.data import check as checking
    from marslora.data import repair

    files = checking.resolve_files(paths, allow_outside=allow_outside)
    if fix is not None:
        repair.check_can_repair(files, fix, image_folder)
    workers = workers if workers is not None else min(_MAX_WORKERS, os.cpu_count() or 1)
    try:
        with ConsoleListener(PlainConsole(stderr=True)) as listener:
            report = checking.check_data(
                paths,
                image_folder=image_folder,
                max_pixels=max_pixels,
                max_frames=max_frames,
                allow_outside=allow_outside,
                processor=partial(load_model_processor, model) if model is not None else None,
                workers=workers,
                progress=lambda done, total: listener.advance(
                    ProgressEvent(task="reading rows", done=done, total=total)
                ),
            )
        written = repair.write_repaired(files, report.bad, fix) if fix is not None else []
    except KeyboardInterrupt:
        print_line(PlainConsole(stderr=True), "Interrupted; nothing was written.")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print(report.to_json())
    else:
        print_report(PlainConsole(), report)
        for path in written:
            print_line(PlainConsole(), f"wrote {path}")
        if written:
            print_line(PlainConsole(), suggest_options(files, fix, image_folder))
    if report.bad:
        raise typer.Exit(BAD_ROWS)


def load_model_processor(model: str) -> Any:
    """The processor of a model's folder or Hub name."""
    from marslora.core.spec import ModelSpec
    from marslora.models.loading import load_processor

    return load_processor(ModelSpec(path=model))


def print_report(console: Console, report: CheckReport) -> None:
    """Print the report as tables and histograms."""
    from marslora.data.splits import write_notes

    table = Table(box=None, show_header=False)
    table.add_row("rows", f"{report.num_rows:,}")
    table.add_row("turns", f"{report.num_turns:,}")
    table.add_row("images", f"{report.num_images:,}")
    table.add_row("audio", f"{report.num_sounds:,} ({report.audio_seconds:,.1f} s)")
    if report.num_videos:
        frames = f"{report.video_seconds:,.1f} s, {report.num_frames:,} frames"
        table.add_row("videos", f"{report.num_videos:,} ({frames})")
    table.add_row("repeated rows", f"{report.num_repeats:,}")
    table.add_row("bad rows", f"{report.num_bad:,}")
    console.print(table)
    for unit, lengths in report.lengths.items():
        quantiles = "  ".join(f"{float(share):.0%} {value:,}" for share, value in lengths.quantiles.items())
        numbers = f"  mean {lengths.mean:,.1f}  min {lengths.least:,}  {quantiles}  max {lengths.most:,}"
        print_line(console, (f"\n{unit} per row", "bold"), numbers)
        for line in draw_bars(lengths.edges, lengths.counts):
            print_line(console, line)
    for line in (*report.repeats, *write_notes(report.notes)):
        print_line(console, (line, "yellow"))
    for row in report.bad[:_SHOWN_BAD_ROWS]:
        print_line(console, (str(row), "red"))
    if len(report.bad) > _SHOWN_BAD_ROWS:
        print_line(console, f"... and {len(report.bad) - _SHOWN_BAD_ROWS:,} more: --json or --fix lists all of them")


def suggest_options(files: list[Any], out: Path | None, image_folder: str | None) -> str:
    """A line with the options by which `marslora search` reads the files that were written."""
    assert out is not None
    whole_folder = files[0].registry is not None or files[0].copy_name != "good.jsonl"
    names = [out] if whole_folder else sorted(out.glob("good.*"))
    sources = " ".join(f"--train {shlex.quote(str(name))}" for name in names)
    return f"to use them: {sources} --image-folder {shlex.quote(str(image_folder or files[0].folder))}"
