"""``marslora search``: all steps from a model and data to a trained adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from marslora.cli._options import with_options
from marslora.cli._run import watch_study
from marslora.core.options import INPUT
from marslora.settings import SEARCH_OPTIONS, make_spec, read_search

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="YAML file with model, data, ranks, search and training. Options override it.",
        rich_help_panel=INPUT,
    ),
]


@with_options(SEARCH_OPTIONS)
def command(config: Config = None, **options: Any) -> None:
    """Find the LoRA rank of every part, train the adapter and write the report.

    Run the same command again to continue where it was interrupted.

    Example: marslora search --model ./llava --train train.jsonl --validation held.jsonl --ranks 4,16,64 --epochs 2
    """
    settings, run_options = read_search(options, config, "flag")
    watch_study(make_spec(settings), run_options)
