"""The options of ``marslora search``, grouped as its help shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WHAT, HOW, TRAINING, MACHINE = "What to tune", "How to search", "How to train", "Machine and output"

Model = Annotated[str | None, typer.Option("--model", "-m", help="Model folder or hub name.", rich_help_panel=WHAT)]
Train = Annotated[
    list[str] | None,
    typer.Option(
        "--train",
        "-d",
        help=(
            "Training rows: JSONL, JSON, CSV, parquet, or a folder; FOLDER#NAME picks from a dataset_info.json. "
            "Repeatable."
        ),
        rich_help_panel=WHAT,
    ),
]
Validation = Annotated[
    list[str] | None,
    typer.Option(
        "--eval", help="Held-out rows for every decision. Default: a tenth of the training rows.", rich_help_panel=WHAT
    ),
]
Test = Annotated[
    list[str] | None,
    typer.Option("--test", help="Rows that are looked at once, at the very end.", rich_help_panel=WHAT),
]
ImageFolder = Annotated[
    str | None,
    typer.Option(help="Where relative image paths start. Default: beside the data file.", rich_help_panel=WHAT),
]
MaxExamples = Annotated[
    int | None,
    typer.Option(help="Use at most so many training rows, chosen by the data seed.", rich_help_panel=WHAT),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="YAML file with model, data, training, search, ranks; options override it.",
        rich_help_panel=WHAT,
    ),
]
Ranks = Annotated[
    list[str] | None,
    typer.Option(
        "--ranks",
        "-r",
        help=(
            "Ladder for every part (4,16,64), or for one (--ranks vision=4,16 --ranks language=16,64; one rank fixes a "
            "part). Repeatable. Default: 1,4,16,64. A projector that is not named gets the middle rank."
        ),
        rich_help_panel=HOW,
    ),
]
Strategy = Annotated[
    str | None,
    typer.Option(help="mars, grid, uniform, random_search, ... (see `marslora kinds`).", rich_help_panel=HOW),
]
Budget = Annotated[
    str | None,
    typer.Option(
        help=(
            "Full runs to spend before the final run (0.5); a time (30m, 2h) or operations (1e15flops) that no round "
            "may go beyond; or both (0.5,30m)."
        ),
        rich_help_panel=HOW,
    ),
]
MaxParameters = Annotated[
    int | None,
    typer.Option(help="Choose none with more trainable parameters.", min=1, rich_help_panel=HOW),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        help="Choose none whose trained parameters, gradients and optimizer take more: 500MB, 2GiB.",
        metavar="BYTES",
        rich_help_panel=HOW,
    ),
]
MaxRank = Annotated[
    int | None,
    typer.Option(help="The largest rank of any part, e.g. vLLM's max_lora_rank.", min=1, rich_help_panel=HOW),
]
Sweep = Annotated[
    float | None,
    typer.Option(
        help="At last train the chosen ranks and their neighbours for this share of a full run, beyond the budget.",
        min=0,
        max=1,
        rich_help_panel=HOW,
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of initialisation, order and bootstrap.", rich_help_panel=HOW)]
Epochs = Annotated[
    float | None,
    typer.Option(help="Length of a full run in passes over the training rows. Default: 3.", rich_help_panel=TRAINING),
]
Examples = Annotated[
    int | None,
    typer.Option(help="Length of a full run in examples seen (instead of --epochs).", rich_help_panel=TRAINING),
]
BatchSize = Annotated[int | None, typer.Option(help="Examples a step. Default: 16.", rich_help_panel=TRAINING)]
Accumulation = Annotated[int | None, typer.Option(help="Micro-batches a step. Default: 1.", rich_help_panel=TRAINING)]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", "--lr", help="Default: 2e-4.", rich_help_panel=TRAINING)
]
PartLearningRate = Annotated[
    list[str] | None, typer.Option(help="Learning rate of one part: vision=1e-4. Repeatable.", rich_help_panel=TRAINING)
]
AlphaOverRank = Annotated[
    float | None,
    typer.Option(help="Scale of the adapters, the same at every rank. Default: 2.", rich_help_panel=TRAINING),
]
Dropout = Annotated[float | None, typer.Option(help="Default: 0.", rich_help_panel=TRAINING)]
Full = Annotated[
    list[str] | None,
    typer.Option(
        help="Part trained whole instead of by LoRA, typically projector. Repeatable.", rich_help_panel=TRAINING
    ),
]
Optimizer = Annotated[str | None, typer.Option(help="adamw, ... (see `marslora kinds`).", rich_help_panel=TRAINING)]
Adapter = Annotated[
    str | None, typer.Option(help="What the final run trains: lora, ... (`marslora kinds`).", rich_help_panel=TRAINING)
]
Calibrate = Annotated[
    str | None,
    typer.Option(
        "--calibration-adapter",
        help="What is trained while ranks are compared. Default: the --adapter.",
        rich_help_panel=TRAINING,
    ),
]
Experts = Annotated[
    bool,
    typer.Option("--experts", help="Adapt stacked experts too, each with its part's rank.", rich_help_panel=TRAINING),
]
GradientCheckpointing = Annotated[
    bool, typer.Option("--gradient-checkpointing", help="Less memory, a third more time.", rich_help_panel=TRAINING)
]
Study = Annotated[
    Path | None,
    typer.Option(
        "--study", "-o", help="Study folder. Default: studies/MODEL-DIGEST.", file_okay=False, rich_help_panel=MACHINE
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(help="Optuna storage URL for the runs. Default: SQLite in the study folder.", rich_help_panel=MACHINE),
]
Workers = Annotated[
    int,
    typer.Option(
        help="Packs trained at a time, each in a process of its own, on the GPUs in turn; 0: in this process.",
        min=0,
        rich_help_panel=MACHINE,
    ),
]
Device = Annotated[str | None, typer.Option(help="Default: the GPU if there is one.", rich_help_panel=MACHINE)]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.", rich_help_panel=MACHINE)]
Final = Annotated[
    bool, typer.Option("--final/--no-final", help="Train the chosen allocation to the end.", rich_help_panel=MACHINE)
]
Uniform = Annotated[
    bool,
    typer.Option(
        "--uniform", help="Also train one uniform rank with as many parameters, to compare.", rich_help_panel=MACHINE
    ),
]
ReportTo = Annotated[
    list[str] | None,
    typer.Option(
        help="Trackers for the final run: trackio, wandb, tensorboard, ... Repeatable.", rich_help_panel=MACHINE
    ),
]
