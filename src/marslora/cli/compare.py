"""``marslora compare``: train several methods on the same rows, with the same seeds and budget."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from marslora.cli._options import with_options
from marslora.cli._run import tell_how_to_continue
from marslora.comparison.settings import COMPARE_OPTIONS, read_comparison
from marslora.core.allocation import Allocation
from marslora.core.comparison import Comparison
from marslora.core.decision import Interval
from marslora.core.errors import EXIT_UNSETTLED
from marslora.core.options import INPUT
from marslora.core.stopping import Terminated
from marslora.listeners.console import ConsoleListener, PlainConsole, print_line

Config = Annotated[
    Path | None,
    typer.Argument(
        help="YAML file with model, data, training, methods, seeds, equal, ranks and metric. Options override it."
    ),
]
Demo = Annotated[
    str | None,
    typer.Option(
        help="Built-in task, instead of your own model and rows: vision, language, both, small or null.",
        metavar="TASK",
        rich_help_panel=INPUT,
    ),
]


@with_options(COMPARE_OPTIONS)
def command(config: Config = None, demo: Demo = None, **options: Any) -> None:
    """Train several methods on the same rows, seeds and budget; print a table with intervals and write a page.

    Run the same command again to continue an interrupted comparison; methods and seeds can be added. The exit code is
    3 if a run of any method is missing.

    Example: marslora compare --demo both --method uniform --method adalora --method "moka:rank=8" --seeds 0,1,2
    """
    from marslora.comparison.run import run_comparison
    from marslora.report.comparison import NAME, write_failures

    request, run_options = read_comparison(options, config, demo, "flag")
    console = PlainConsole()
    try:
        with ConsoleListener(console) as listener:
            comparison = run_comparison(request, run_options, listener)
    except (KeyboardInterrupt, Terminated) as stopped:
        tell_how_to_continue(console, "finished runs are kept", stopped)
    show_comparison(console, comparison)
    print_line(console, str((run_options.out or request.default_folder) / NAME))
    if write_failures(comparison):
        raise typer.Exit(EXIT_UNSETTLED)


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print what failed, the result in one sentence, the table of methods, and what the table means."""
    from marslora.report.comparison import write_failures, write_headline, write_summary_lines
    from marslora.report.figures.methods import METRICS
    from marslora.report.numbers import abbreviate_count, format_number

    table = Table(box=None)
    answers = [comparison.answer_metric] if comparison.answer_metric else []
    last = answers or ["FLOPs"]  # there is no room for both in 80 columns
    for head in ("method", "rank", "trainable", METRICS[comparison.metric], "difference", "seconds", *last):
        table.add_column(head, no_wrap=head != "method")
    for method in comparison.ordered():
        cost = method.cost
        operations = f"{cost.flops:.3g}" if cost else ""
        answer = f"{method.answer_metric.value:.4f}" if method.answer_metric else ""
        table.add_row(
            method.name,
            _ranks(method.allocation),
            abbreviate_count(method.num_trainable),
            _interval(comparison.loss(method), ".4f"),
            _interval(method.difference, "+.4f"),
            format_number(cost.seconds) if cost else "",
            answer if answers else operations,
        )
    if failures := write_failures(comparison):
        print_line(console, (failures, "bold red"))
    print_line(console, (write_headline(comparison), "bold"))
    console.print(table)
    for line in write_summary_lines(comparison):
        print_line(console, line)


def _ranks(allocation: Allocation | None) -> str:
    ranks = [] if allocation is None else [rank for _, rank in allocation.ranks]
    return str(ranks[0]) if len(set(ranks)) == 1 else "/".join(map(str, ranks))


def _interval(interval: Interval | None, form: str) -> str:
    if interval is None:
        return ""
    half = "" if math.isnan(interval.high) else f" +-{interval.high - interval.value:.4f}"
    return f"{interval.value:{form}}{half}"
