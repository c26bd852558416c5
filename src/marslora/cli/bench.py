"""``marslora bench``: replay searches on tables of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from marslora.core.decision import Interval
from marslora.core.errors import ConfigError
from marslora.core.runs import ProgressEvent
from marslora.core.words import read_numbers
from marslora.listeners.console import ConsoleListener, PlainConsole, print_line

if TYPE_CHECKING:
    from marslora.replay import BenchmarkResult, Reliability

Tables = Annotated[list[Path], typer.Argument(help="Tables of finished runs (.parquet), or folders of them.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for bench.json and bench.html.", file_okay=False)]
Strategy = Annotated[
    list[str] | None,
    typer.Option(
        "--strategy",
        "-s",
        metavar="STRATEGY",
        help=(
            "Strategy, with options after a colon and a budget in full runs after @. Slashes separate settings of one "
            "family: successive_halving:eta=4,first_rung=0.0156/0.0625 or mars@0.1/0.2/0.4. "
            "Default: every strategy at several budgets. Repeatable."
        ),
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        help="Family that the others are compared with. Default: successive halving, eta 4.", metavar="FAMILY"
    ),
]
Cost = Annotated[
    list[float] | None,
    typer.Option(
        help=(
            "Cost in full runs, including the final run, at which families are compared. Default: 1.15 and 1.4. "
            "Repeatable."
        ),
        min=1.0,
        metavar="NUMBER",
    ),
]
MaxShare = Annotated[
    list[float] | None,
    typer.Option(
        help=(
            "Limit on the trainable parameters of candidates, as a share of the largest candidate's. Below 1, parts "
            "compete for ranks. Default: 1, 0.5 and 0.25. Repeatable."
        ),
        metavar="NUMBER",
    ),
]
Seeds = Annotated[str | None, typer.Option(help="Which seeds of the tables to use, e.g. 0,1,2. Default: all.")]
Workers = Annotated[int, typer.Option(help="Number of processes that replay searches.", min=1)]


def command(
    tables: Tables,
    strategy: Strategy = None,
    reference: Reference = None,
    cost: Cost = None,
    max_share: MaxShare = None,
    seeds: Seeds = None,
    out: Out = Path("bench"),
    workers: Workers = 1,
) -> None:
    """Compare searches in minutes: replay them on tables of finished runs and charge what they would have spent.

    Example: marslora bench benchmarks/tables --strategy mars@0.1/0.2/0.4 --cost 1.4
    """
    from marslora.core.files import write_text
    from marslora.replay.benchmark import COSTS, MAX_SHARES, run_benchmark
    from marslora.replay.searchers import REFERENCE, add_reference, parse_searchers, standard_searchers
    from marslora.replay.table import find_tables
    from marslora.report import benchmark as page

    shares = max_share or MAX_SHARES
    if wrong := [share for share in shares if not 0 < share <= 1]:
        raise ConfigError(f"`--max-share` must be above 0 and at most 1, found {wrong[0]:g}. Give a share such as 0.5.")
    chosen = [searcher for word in strategy or () for searcher in parse_searchers(word)]
    reference = reference or REFERENCE
    searchers = add_reference(chosen or standard_searchers(), reference, standard_searchers())
    console = PlainConsole()
    with ConsoleListener(console) as listener:
        listener.stage(f"Replaying {len(searchers)} searches")
        result = run_benchmark(
            find_tables(tables),
            searchers,
            reference,
            costs=sorted(cost or COSTS),
            max_shares=shares,
            seeds=_read_seeds(seeds) if seeds else (),
            workers=workers,
            advance=lambda done, total: listener.advance(ProgressEvent(task="replays", done=done, total=total)),
        )
    show_result(console, result)
    write_text(out / "bench.json", result.to_json())
    print_line(console, str(page.write_page(result, out / page.NAME)))


def show_result(console: Console, bench: BenchmarkResult) -> None:
    """Print the ranking at every cost, then how reliable the reported probabilities are."""
    from marslora.replay import rank_families
    from marslora.report.benchmark import (
        format_reference_cost,
        measure_reliabilities,
        write_headline,
        write_summary_lines,
    )

    print_line(console, (write_headline(bench), "bold"))
    for cost in bench.costs:
        rows = [
            (
                row.family,
                _interval(row.regret, ".3f"),
                _interval(row.difference, "+.3f"),
                format_reference_cost(row),
                row.num_instances,
            )
            for row in rank_families(bench.scores, cost, bench.reference)
        ]
        print_line(
            console,
            f"\nAt {cost:g} full runs, the final run included. Differences are from {bench.reference} at the cost in\n"
            "column `at`; n is the number of instances; 90 % intervals in brackets:",
        )
        heads = ("family", "regret", "difference", "at", "n")
        console.print(_table(heads, rows))
    if families := measure_reliabilities(bench):
        lines = [
            ("the best allocation is in the plausible set (90 %)", *(f"{each.coverage_best:.0%}" for each in families)),
            ("the best or one tied with it is in the set", *(f"{each.coverage:.0%}" for each in families)),
            ("number of allocations in the set", *(f"{each.mean_plausible:.1f}" for each in families)),
            *(
                (f"`indistinguishable` on {header.name}", *(_share(each, header.name) for each in families))
                for header in bench.tables
            ),
        ]
        print_line(console, "\nReliability of the reported probabilities (shares of replays):")
        console.print(_table(("", *(each.family for each in families)), lines))
    for line in write_summary_lines(bench):
        print_line(console, (line, "dim"))


def _read_seeds(text: str) -> tuple[int, ...]:
    try:
        return read_numbers(text, "numbers such as 0,1,2")
    except ValueError as error:
        raise ConfigError(f"`--seeds` {error}.") from None


def _share(reliability: Reliability, table: str) -> str:
    share = reliability.indistinguishable.get(table)
    return "" if share is None else f"{share:.0%}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    table = Table(box=None)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", no_wrap=bool(number))
    for row in rows:
        table.add_row(*map(str, row))
    return table


def _interval(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f"{interval.value:{form}} ({interval.low:{form}}, {interval.high:{form}})"
