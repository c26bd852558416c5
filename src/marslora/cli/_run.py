"""Run a study with its progress on the console, and print the verdict at the end."""

from __future__ import annotations

import shlex
import sys
from typing import NoReturn

import typer
from rich.console import Console

from marslora.cli._console import ConsoleListener, print_line, print_panel
from marslora.cli._options import INTERRUPTED
from marslora.core.spec import StudySpec
from marslora.run_options import RunOptions
from marslora.settings import default_folder


def watch_study(spec: StudySpec, options: RunOptions) -> None:
    """Run every missing stage and print the verdict; after Ctrl-C, the same command continues the study."""
    from marslora import api
    from marslora.report import page

    console = Console()
    try:
        with ConsoleListener(console) as listener:
            show_settings(console, spec, options)
            decision = api.run_study(spec, options, listener)
    except KeyboardInterrupt:
        tell_how_to_continue(console, "nothing measured is lost")
    print_panel(console, "marslora", page.summarise_study(decision.folder))


def tell_how_to_continue(console: Console, kept: str) -> NoReturn:
    """Print what is ``kept`` and the command that continues after Ctrl-C, then exit with `INTERRUPTED`."""
    print_line(console, f"\nInterrupted; {kept}. To continue:\n  {shlex.join(command_line())}")
    raise typer.Exit(INTERRUPTED)


def show_settings(console: Console, spec: StudySpec, options: RunOptions) -> None:
    """Print the main settings, defaults included."""
    training = spec.training
    length = f"{training.examples} examples" if training.examples else f"{training.epochs:g} epochs"
    rates = "".join(f", {part} {rate:g}" for part, rate in training.part_learning_rates.items())
    settings = (
        f"model {spec.model.path}\n"
        f"ranks {'; '.join(f'{part} {list(ladder)}' for part, ladder in spec.space.ladders)}\n"
        f"full run {length} in batches of {training.batch_size}, {training.optimizer.name} at "
        f"{training.learning_rate:g}{rates}, alpha/r {training.alpha_over_rank:g}\n"
        f"strategy {spec.search.strategy.name}, study {options.study or default_folder(spec)}"
    )
    print_line(console, (settings, "dim"))


def command_line() -> list[str]:
    """Return the command as it was typed."""
    return ["marslora", *sys.argv[1:]]
