"""``marslora compare``: several methods on the same rows, seeds and budget."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from marslora.cli import _options as options
from marslora.cli import _settings
from marslora.cli._console import Live
from marslora.cli._executor import executor_of
from marslora.cli._run import INTERRUPTED, command_line
from marslora.core.allocation import Allocation
from marslora.core.comparison import Comparison
from marslora.core.decision import Interval
from marslora.core.errors import ConfigError

Config = Annotated[
    Path | None,
    typer.Argument(help="YAML file with model, data, training, methods, seeds, equal, ranks; options override it."),
]
Method = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help=(
            "A recipe (`marslora kinds`), or RECIPE:key=value,... with name, rank, rank.PART, rate.PART, adapter, "
            "optimizer, gradients, training.FIELD or a recipe's own option. Repeatable; the first is the reference."
        ),
        rich_help_panel=options.HOW,
    ),
]
Seeds = Annotated[str | None, typer.Option(help="Default: 0,1,2.", rich_help_panel=options.HOW)]
Equal = Annotated[
    str | None,
    typer.Option(
        help="What methods have in common: parameters (ranks are scaled), compute (examples are scaled) or examples.",
        rich_help_panel=options.HOW,
    ),
]
Rank = Annotated[
    list[str] | None,
    typer.Option(
        "--rank",
        help="Of every method without one of its own: 16, or --rank vision=8 --rank language=16. Default: the papers'.",
        rich_help_panel=options.HOW,
    ),
]
Demo = Annotated[
    str | None,
    typer.Option(help="An embedded task instead of --model and --train: vision, language, both, small or null."),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the comparison.", file_okay=False)]


def command(
    config: Config = None,
    model: options.Model = None,
    train: options.Train = None,
    validation: options.Validation = None,
    test: options.Test = None,
    image_folder: options.ImageFolder = None,
    demo: Demo = None,
    method: Method = None,
    seeds: Seeds = None,
    equal: Equal = None,
    rank: Rank = None,
    epochs: options.Epochs = None,
    examples: options.Examples = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    alpha_over_rank: options.AlphaOverRank = None,
    dropout: options.Dropout = None,
    full: options.Full = None,
    optimizer: options.Optimizer = None,
    out: Out = None,
    workers: options.Workers = 0,
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> None:
    """Train several methods on the same rows, seeds and budget; a table with intervals, and a page.

    The same command run again continues; methods and seeds can be added.

    Example: marslora compare --demo both --method uniform --method adalora --method "moka:rank=8" --seeds 0,1,2
    """
    from marslora.comparison.settings import rank_words

    given: dict[str, Any] = {
        "model": {"path": model, "device": device, "dtype": dtype},
        "data": {"train": train, "validation": validation, "test": test, "image_folder": image_folder},
        "training": {
            "epochs": epochs,
            "examples": examples,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "alpha_over_rank": alpha_over_rank,
            "dropout": dropout,
            "full": full,
            "optimizer": {"name": optimizer},
        },
        "methods": method,
        "seeds": _settings.seeds(seeds) if seeds else None,
        "equal": equal,
        "ranks": rank_words(rank or ()),
    }
    watch(_settings.merge(_settings.read_config(config), given), str(config or "the command line"), demo, out, workers)


def watch(settings: dict[str, Any], source: str, demo: str | None, out: Path | None, workers: int) -> None:
    """Run the comparison with a person watching, and print its table."""
    from marslora.comparison.run import run
    from marslora.comparison.settings import asked, demo_settings
    from marslora.report.comparison import NAME

    name = (settings.get("model") or {}).get("path", "")
    if demo is None and name.startswith("demo:"):
        demo = name.removeprefix("demo:")
        settings = {**settings, "model": {key: value for key, value in settings["model"].items() if key != "path"}}
    if demo is not None:
        out = out or Path(f"comparisons/demo-{demo}")
        settings = _settings.merge(demo_settings(demo, out), settings)
    for option, section, field in (("--model", "model", "path"), ("--train", "data", "train")):
        if not (settings.get(section) or {}).get(field):
            raise ConfigError(f"`{option}` is missing. Give it, or try --demo both for an embedded model and task.")
    wanted = asked(settings, source)
    folder, console = out or wanted.default_folder, Console()
    try:
        with Live(console) as live:
            found = run(wanted, folder, listener=live, executor=executor_of(workers))
    except KeyboardInterrupt:
        console.print("\nInterrupted; finished runs are kept. To continue:\n  " + shlex.join(command_line()))
        raise typer.Exit(INTERRUPTED) from None
    show(console, found)
    console.print(f"{folder / NAME}", highlight=False)


def show(console: Console, comparison: Comparison) -> None:
    """The table and what it says, on the terminal."""
    from marslora.report.comparison import headline, summary_lines
    from marslora.report.figures.methods import METRICS
    from marslora.report.numbers import compact, short

    table = Table(box=None)
    for head in ("method", "rank", "trainable", METRICS[comparison.metric], "difference", "seconds", "FLOPs"):
        table.add_column(head, no_wrap=head != "method")
    for method in comparison.ordered():
        cost = method.cost
        table.add_row(
            method.name,
            _ranks(method.allocation),
            compact(method.num_trainable),
            _interval(comparison.loss(method), ".4f"),
            _interval(method.difference, "+.4f"),
            short(cost.seconds) if cost else "",
            f"{cost.flops:.3g}" if cost else "",
        )
    console.print(f"[bold]{headline(comparison)}[/bold]")
    console.print(table)
    for line in summary_lines(comparison):
        console.print(line, highlight=False)


def _ranks(allocation: Allocation | None) -> str:
    ranks = [] if allocation is None else [rank for _, rank in allocation.ranks]
    return str(ranks[0]) if len(set(ranks)) == 1 else "/".join(map(str, ranks))


def _interval(found: Interval | None, form: str) -> str:
    if found is None:
        return ""
    half = "" if math.isnan(found.high) else f" +-{found.high - found.value:.4f}"
    return f"{found.value:{form}}{half}"
