"""``marslora inspect``: show the parts of a model, what LoRA can adapt in them, and what it would learn from data."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from marslora.cli._options import with_options
from marslora.core.allocation import MAX_RANK
from marslora.core.parts import PACK_MEMBERS, ModelInfo, PartInfo
from marslora.listeners.console import PlainConsole, print_line
from marslora.settings import INSPECT_OPTIONS

MODEL = typer.Argument(help="Model folder or Hub name.")
TRAIN = typer.Option(
    "--train", "-d", help="Rows to probe with, instead of a built-in task's. Repeatable.", metavar="ROWS"
)
PROBE = typer.Option(
    "--probe", help="Run one forward and backward pass, to find layers that no gradient reaches and to measure memory."
)
RANK = typer.Option(min=1, max=MAX_RANK, help="Rank for which trainable parameters and memory are shown.")
AS_JSON = typer.Option("--json", help="Print everything as JSON.")


@with_options(INSPECT_OPTIONS)
def command(
    model: Annotated[str, MODEL],
    train: Annotated[list[str] | None, TRAIN] = None,
    probe: Annotated[bool, PROBE] = False,
    rank: Annotated[int, RANK] = 16,
    as_json: Annotated[bool, AS_JSON] = False,
    **options: Any,
) -> None:
    """Show a model's parts, their adaptable linear layers and parameters.

    Without --probe or --train, only the configuration is read, no weights. With either, one forward and backward pass
    on real rows shows what would be trained, what is wrong, and how to fix it.

    Example: marslora inspect ./llava --train train.jsonl --rank 8
    """
    from marslora import api

    info = api.inspect(model=model, train=train, rank=rank, probe=probe, **options)
    if as_json:
        print(info.to_json())
        return
    console = PlainConsole()
    contents = f"  {', '.join(info.modalities)}  {format_parameters(info.num_parameters)}"
    print_line(console, (info.architecture, "bold"), contents)
    console.print(build_probe_table(info, rank) if probe or train else build_table(info, rank))
    if info.member_bytes is not None:
        memory = [format_bytes(each or 0) for each in (info.base_bytes, info.member_bytes, info.pack_bytes)]
        print_line(
            console,
            f"memory: {memory[0]} for the model; {memory[1]} for a run that adapts all parts at rank {rank} in batches "
            f"of 16 of the longest rows; {memory[2]} for {PACK_MEMBERS} such runs at once, as in a search",
        )
    if info.unlabelled:
        ignored = f"{', '.join(info.unlabelled[:6])}{' ...' if len(info.unlabelled) > 6 else ''}"
        print_line(console, f"not adapted: {ignored}")
    for warning in info.warnings:
        print_line(console, ("warning:", "yellow"), f" {warning}")


def build_table(info: ModelInfo, rank: int) -> Table:
    """A table with a row for each part, from the configuration alone."""
    shown = Table("part", "where", "parameters", "linears", f"LoRA parameters at r={rank}", box=None)
    for part in info.parts:
        counts = (f"{part.num_parameters:,}", str(len(part.linears)), f"{part.num_trainable(rank):,}")
        shown.add_row(part.name, list_paths(part), *counts)
    return shown


def build_probe_table(info: ModelInfo, rank: int) -> Table:
    """A table with a row for each part and what a probe measured."""
    shown = Table(
        "part", "adapted", "dead", "gradient", "base", "parameters", f"trained at r={rank}", "memory", box=None
    )
    for part in info.parts:
        shown.add_row(
            part.name,
            str(len(part.alive)),
            str(len(part.linears) - len(part.alive)),
            "-" if part.gradient_norm is None else f"{part.gradient_norm:.3g}",
            "frozen" if part.frozen else "not frozen",
            f"{part.num_parameters:,}",
            f"{part.num_trainable(rank):,}" if part.linears else "whole only",
            "-" if part.member_bytes is None else format_bytes(part.member_bytes),
        )
    return shown


def list_paths(part: PartInfo) -> str:
    """The module paths of a part, at most three of them."""
    return ", ".join(part.paths[:3]) + (" ..." if len(part.paths) > 3 else "")


def format_bytes(num_bytes: int) -> str:
    """A number of bytes in MB or GB, e.g. ``12.3 MB``."""
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:,.1f} GB"


def format_parameters(count: int) -> str:
    """A number of parameters in millions, e.g. ``134.5 M parameters``."""
    return f"{count / 1e6:,.1f} M parameters"
