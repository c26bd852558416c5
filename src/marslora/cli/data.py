"""``marslora data``: look at rows before they are trained on."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from marslora.cli._console import Live
from marslora.cli._histogram import bars
from marslora.core.runs import ProgressEvent

if TYPE_CHECKING:
    from marslora.data.check import CheckReport

BAD_ROWS, INTERRUPTED = 1, 130
_SHOWN = 100
app = typer.Typer(
    name="data",
    help="Look at rows before they are trained on.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _group() -> None:
    """Look at rows before they are trained on."""


PATHS = typer.Argument(
    help="Files (.jsonl, .json, .csv, .parquet) or folders: of `datasets`, of pictures or sounds with a metadata "
    "file, of such files; FOLDER#NAME picks from a LLaMA-Factory dataset_info.json.",
    metavar="PATH...",
    show_default=False,
)
MODEL = typer.Option("--model", "-m", help="Model folder or hub name: lengths are then tokens of its processor.")
FIX = typer.Option(
    "--fix",
    help="New folder for good.jsonl (rows as they were written) and bad.jsonl (file, row, reason, text). The sources "
    "stay as they are.",
    metavar="OUT",
)
FOLDER = typer.Option(help="Where relative paths start. Default: beside the data file.")
WORKERS = typer.Option(
    help="Processes that read, once it takes more than seconds. Default: one a core, at most 8.", min=1
)
AS_JSON = typer.Option("--json", help="Print everything as JSON, every bad row included.")


@app.command()
def check(
    paths: Annotated[list[str], PATHS],
    model: Annotated[str | None, MODEL] = None,
    fix: Annotated[Path | None, FIX] = None,
    image_folder: Annotated[str | None, FOLDER] = None,
    workers: Annotated[int | None, WORKERS] = None,
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Read every row, decode every picture and sound, and say what is there and what is wrong.

    Bad rows are named with their reason: a missing, damaged or cut picture, turns in a wrong order, no answer, more
    placeholders than pictures, broken JSON, ...

    Exit code: 0 clean, 1 bad rows found, 2 nothing could be read.

    Example: marslora data check train.jsonl --model ./llava --fix mended
    """
    from marslora.data import check as checking
    from marslora.data import repair

    files = checking.resolve_files(paths)
    if fix is not None:
        repair.check_can_repair(files, fix, image_folder)
    workers = workers if workers is not None else min(8, os.cpu_count() or 1)
    try:
        with Live(Console(stderr=True)) as live:
            found = checking.check_data(
                paths,
                image_folder=image_folder,
                processor=partial(processor_of, model) if model is not None else None,
                workers=workers,
                progress=lambda done, total: live.advance(ProgressEvent(task="reading rows", done=done, total=total)),
            )
        written = repair.write_repaired(files, found.bad, fix) if fix is not None else []
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted; nothing was written.")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print(found.to_json())
    else:
        show(Console(), found)
        for path in written:
            Console().print(f"wrote {path}", highlight=False, soft_wrap=True)
        if written:
            Console().print(how_to_use(files, fix, image_folder), highlight=False, soft_wrap=True)
    if found.bad:
        raise typer.Exit(BAD_ROWS)


def processor_of(model: str) -> Any:
    """The processor of a model."""
    from marslora.core.spec import ModelSpec
    from marslora.models.loading import load_processor

    return load_processor(ModelSpec(path=model))


def show(console: Console, found: CheckReport) -> None:
    """The check as a person reads it."""
    table = Table(box=None, show_header=False)
    table.add_row("rows", f"{found.num_rows:,}")
    table.add_row("turns", f"{found.num_turns:,}")
    table.add_row("images", f"{found.num_images:,}")
    table.add_row("audio", f"{found.num_sounds:,} ({found.audio_seconds:,.1f} s)")
    table.add_row("repeated rows", f"{found.num_repeats:,}")
    table.add_row("bad rows", f"{found.num_bad:,}")
    console.print(table)
    for unit, lengths in found.lengths.items():
        quantiles = "  ".join(f"{float(share):.0%} {value:,}" for share, value in lengths.quantiles.items())
        console.print(
            f"\n[bold]{unit} a row[/bold]  mean {lengths.mean:,.1f}  least {lengths.least:,}  {quantiles}  "
            f"most {lengths.most:,}",
            highlight=False,
            soft_wrap=True,
        )
        for line in bars(lengths.edges, lengths.counts):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    for line in found.repeats:
        console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
    for row in found.bad[:_SHOWN]:
        console.print(str(row), style="red", highlight=False, markup=False, soft_wrap=True)
    if len(found.bad) > _SHOWN:
        console.print(f"... and {len(found.bad) - _SHOWN:,} more: --json or --fix names all of them")


def how_to_use(files: list[Any], out: Path | None, image_folder: str | None) -> str:
    """The options that read what was written."""
    assert out is not None
    whole_folder = files[0].registry is not None or files[0].copy_name != "good.jsonl"
    names = [out] if whole_folder else sorted(out.glob("good.*"))
    sources = " ".join(f"--train {name}" for name in names)
    return f"to use it: {sources} --image-folder {image_folder or files[0].folder}"
