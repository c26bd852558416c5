"""Run a study with its progress on the console, and print the verdict at the end."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console

from marslora.checks import check_study
from marslora.cli._panel import print_panel
from marslora.core.errors import EXIT_UNSETTLED
from marslora.core.spec import StudySpec
from marslora.core.stopping import EXIT_INTERRUPTED, EXIT_TERMINATED, Terminated
from marslora.listeners.console import ConsoleListener, PlainConsole, print_line
from marslora.run_options import RunOptions
from marslora.settings import default_folder
from marslora.store.storage_url import drop_password


def watch_study(spec: StudySpec, options: RunOptions) -> None:
    """Run every stage that is missing and print the verdict.

    The exit code is `EXIT_UNSETTLED` if the verdict is not to be relied on. Ctrl-C and SIGTERM leave a study that the
    same command continues; how, is printed.
    """
    from marslora import api

    console = PlainConsole()
    try:
        with ConsoleListener(console) as listener:
            check_study(spec, options)
            show_settings(console, spec, options)
            decision = api.run_study(spec, options, listener)
    except (KeyboardInterrupt, Terminated) as stopped:
        tell_how_to_continue(console, "nothing measured is lost", stopped)
    print_panel(console, "marslora", decision.summary.splitlines())
    if decision.record.problems:
        raise typer.Exit(EXIT_UNSETTLED)


def tell_how_to_continue(console: Console, kept: str, stopped: BaseException) -> NoReturn:
    """Print the command that continues after Ctrl-C or SIGTERM, and exit."""
    is_terminated = isinstance(stopped, Terminated)
    what = "Terminated" if is_terminated else "Interrupted"
    typed = command_line()
    shown = [drop_password(word) for word in typed]
    print_line(console, f"\n{what}; {kept}. To continue:\n  {shlex.join(shown)}")
    if shown != typed:
        print_line(console, "The password of the storage is left out: give it in PGPASSWORD, or in the command again.")
    raise typer.Exit(EXIT_TERMINATED if is_terminated else EXIT_INTERRUPTED)


def show_settings(console: Console, spec: StudySpec, options: RunOptions) -> None:
    """Print the main settings, defaults included."""
    training = spec.training
    length = f"{training.examples} examples" if training.examples else f"{training.epochs:g} epochs"
    settings = (
        f"model {spec.model.path}\n"
        f"ranks {'; '.join(f'{part} {list(ladder)}' for part, ladder in spec.space.ladders)}\n"
        f"{describe_rates(spec)}\n"
        f"full run {length} in batches of {training.batch_size}, {training.optimizer.name}, "
        f"alpha/r {training.alpha_over_rank:g}\n"
        f"strategy {spec.search.strategy.name}, study {options.study or default_folder(spec)}"
    )
    print_line(console, (settings, "dim"))


def describe_rates(spec: StudySpec) -> str:
    """The learning rates that are tried, or the one that holds, and those of single parts."""
    rates = spec.learning_rates or (spec.training.learning_rate,)
    said = [f"learning rate{'' if len(rates) == 1 else 's'} {', '.join(f'{rate:g}' for rate in rates)}"]
    said += [f"{part} {rate:g}" for part, rate in spec.training.part_learning_rates.items()]
    for part, factors in spec.part_rate_factors.items():
        said.append(f"{part} at {', '.join(f'{factor:.2g}' for factor in factors)} times that")
    return "; ".join(said)


def command_line() -> list[str]:
    """Return the command, so that it can be pasted into the shell that it was typed in."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return [sys.executable, "-m", "marslora", *sys.argv[1:]]
    found = shutil.which(program.name)
    is_on_path = found is not None and Path(found).resolve() == program.resolve()
    return [program.name if is_on_path else str(program.absolute()), *sys.argv[1:]]
