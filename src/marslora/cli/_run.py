"""Run a study with a person watching, and say at the end what came out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.panel import Panel

from marslora.cli._console import Live
from marslora.core.budget import Limit
from marslora.core.spec import StudySpec

if TYPE_CHECKING:
    from marslora.executors import AbstractExecutor

INTERRUPTED = 130


def watch(
    spec: StudySpec,
    folder: Path,
    *,
    storage: str | None = None,
    final: bool = True,
    uniform: bool = False,
    report_to: Sequence[str] = (),
    executor: AbstractExecutor | None = None,
    limit: Limit | None = None,
) -> None:
    """Run every stage that is missing and print the verdict; Ctrl-C leaves a study that the same command continues."""
    from marslora import api
    from marslora.report import page

    console = Console()
    try:
        with Live(console) as live:
            show_settings(console, spec, folder)
            decision = api.run_study(
                spec,
                folder,
                storage=storage,
                final=final,
                uniform=uniform,
                report_to=report_to,
                listener=live,
                executor=executor,
                limit=limit,
            )
    except KeyboardInterrupt:
        console.print("\nInterrupted; nothing measured is lost. To continue:\n  " + shlex.join(command_line()))
        raise typer.Exit(INTERRUPTED) from None
    lines = page.summary(decision.folder)
    console.print(Panel("\n".join(lines), title="marslora", expand=False))


def show_settings(console: Console, spec: StudySpec, folder: Path) -> None:
    """The defaults that were filled in, printed so that nobody has to guess them."""
    training = spec.training
    length = f"{training.examples} examples" if training.examples else f"{training.epochs:g} epochs"
    rates = "".join(f", {part} {rate:g}" for part, rate in training.part_learning_rates.items())
    console.print(
        f"model {spec.model.path}\n"
        f"ranks {'; '.join(f'{part} {list(ladder)}' for part, ladder in spec.space.ladders)}\n"
        f"full run {length} in batches of {training.batch_size}, {training.optimizer.name} at "
        f"{training.learning_rate:g}{rates}, alpha/r {training.alpha_over_rank:g}\n"
        f"strategy {spec.search.strategy.name}, study {folder}",
        highlight=False,
        style="dim",
    )


def command_line() -> list[str]:
    """The command as it was typed."""
    return ["marslora", *sys.argv[1:]]
