"""``marslora inspect``: the parts of a model and what LoRA can adapt in them."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from marslora.core.parts import ModelInfo, PartInfo
from marslora.core.spec import DataSpec, ModelSpec, PrepareSpec

TRAIN = typer.Option("--train", "-d", help="Rows to probe with: finds layers that no gradient reaches. Repeatable.")
TARGETS = typer.Option(help="Regular expression: only linears whose whole path matches are counted.")


def command(
    model: Annotated[str, typer.Argument(help="Model folder or hub name.")],
    train: Annotated[list[str] | None, TRAIN] = None,
    targets: Annotated[str | None, TARGETS] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show a model's parts, their adaptable linears and parameters.

    Without data only the configuration is read (no weights); with --train one backward pass on real rows tells
    which layers are dead.
    """
    spec = ModelSpec(path=model, targets=targets)
    info = probed(spec, tuple(train)) if train else described(spec)
    if as_json:
        print(info.to_json())
        return
    console = Console()
    console.print(f"[bold]{info.architecture}[/bold]  {', '.join(info.modalities)}  {millions(info.num_parameters)}")
    console.print(table(info, probed=bool(train)))
    if info.unlabelled:
        console.print(f"left alone: {', '.join(info.unlabelled[:6])}{' ...' if len(info.unlabelled) > 6 else ''}")
    for warning in info.warnings:
        console.print(f"[yellow]warning:[/yellow] {warning}")


def described(spec: ModelSpec) -> ModelInfo:
    """The parts, from the configuration alone."""
    from marslora.models.loading import describe

    return describe(spec)


def probed(spec: ModelSpec, train: tuple[str, ...]) -> ModelInfo:
    """The parts, with the dead layers that one backward pass on real rows finds."""
    import tempfile

    from marslora.core.runs import Prepared
    from marslora.engine.prepare import prepare

    found: list[Prepared] = []
    with tempfile.TemporaryDirectory() as cache:
        asked = PrepareSpec(model=spec, data=DataSpec(train=train, max_examples=64), batch_size=4, cache_folder=cache)
        prepare(asked, lambda event: found.append(event) if isinstance(event, Prepared) else None)
    return found[0].info


def table(info: ModelInfo, *, probed: bool) -> Table:
    """One row a part."""
    headings = ["part", "where", "parameters", "linears", "dead", "LoRA parameters at r=16"]
    shown = Table(*headings, box=None)
    for part in info.parts:
        dead = str(len(part.linears) - len(part.alive)) if probed else "not probed"
        lora = f"{sum(linear.num_trainable(16) for linear in part.alive):,}"
        shown.add_row(part.name, where(part), f"{part.num_parameters:,}", str(len(part.linears)), dead, lora)
    return shown


def where(part: PartInfo) -> str:
    """The module paths of a part, shortened."""
    return ", ".join(part.paths[:3]) + (" ..." if len(part.paths) > 3 else "")


def millions(count: int) -> str:
    """``134.5 M parameters``."""
    return f"{count / 1e6:,.1f} M parameters"
