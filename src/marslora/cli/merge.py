"""``marslora merge``: write a whole model, with the adapter of a study merged into its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marslora.listeners.console import PlainConsole, print_line

STUDY = typer.Argument(help="Study folder with a trained adapter.")
OUT = typer.Option("--out", "-o", help="Folder of the merged model, which must not exist.", metavar="FOLDER")
MODEL = typer.Option("--model", "-m", help="Base model, if it is elsewhere now. Default: where the study had it.")
ROWS = typer.Option(
    "--rows", help="Rows on which logits are compared. Default: the study's validation rows.", metavar="ROWS"
)
DTYPE = typer.Option(help="Number format: auto (as the base's checkpoint), float32, bfloat16 or float16.")
DEVICE = typer.Option(help="Device to use, such as cpu or cuda:1. Default: the study's.")
TASK = typer.Option(help="Task, for an adapter that has one change of the weights for each.")
PUSH = typer.Option("--push-to-hub", help="Push the merged model to this repository of the hub.", metavar="OWNER/NAME")
PRIVATE = typer.Option("--private", help="Make the repository private if it does not exist yet.")
LICENSE = typer.Option(help="Licence that the model card states. Default: that of the base model's own card.")
TRUST = typer.Option("--trust-remote-code", help="Run Python code that comes with the model or the adapter.")
FORMATS = ("auto", "float32", "bfloat16", "float16")


def command(
    study: Annotated[Path, STUDY],
    out: Annotated[Path, OUT],
    model: Annotated[str | None, MODEL] = None,
    rows: Annotated[str | None, ROWS] = None,
    dtype: Annotated[str, DTYPE] = "auto",
    device: Annotated[str, DEVICE] = "",
    task: Annotated[str | None, TASK] = None,
    push_to_hub: Annotated[str | None, PUSH] = None,
    private: Annotated[bool, PRIVATE] = False,
    license: Annotated[str | None, LICENSE] = None,
    trust_remote_code: Annotated[bool, TRUST] = False,
) -> None:
    """Write model, processor and configuration with the adapter merged in, as a folder like the base model's.

    What was written is loaded again, and its logits are compared with those of the model with its adapter; if they
    differ, nothing is kept.

    Example: marslora merge studies/llava-1a2b3c4d --out merged
    """
    if dtype not in FORMATS:
        raise typer.BadParameter(f"must be one of {', '.join(FORMATS)}, found {dtype}", param_hint="--dtype")
    from marslora.deployment.merge import merge_study
    from marslora.deployment.push import check_can_push, push_folder
    from marslora.deployment.trained import find_trained
    from marslora.report.model_card import name_model

    if push_to_hub:
        check_can_push(push_to_hub)
    check = merge_study(
        study,
        out,
        model=model,
        rows=rows,
        dtype=dtype,
        device=device,
        task=task,
        licence=license,
        trust_remote_code=trust_remote_code,
    )
    print_line(
        PlainConsole(),
        f"{out}: logits differ from the adapter's by at most {check.largest_difference:.1e} standard deviations, and "
        f"{check.same_tokens:.1%} of {check.num_positions} likeliest tokens are the same.",
    )
    if push_to_hub:
        base = name_model(find_trained(study).model.path)
        print_line(PlainConsole(), push_folder(out, push_to_hub, base, private=private))
