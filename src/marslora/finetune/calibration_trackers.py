"""Send the curves of the calibration runs to trackers: one run for each member, in one group."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from marslora.core.runs import CalibrationRuns, Emit, Run

Point = tuple[int, dict[str, float]]
"""Examples seen, and the losses measured there by name."""
GROUP = "calibration"
VALIDATION, TRAINING = "eval/loss", "train/loss"
"""The names under which the final run's Trainer writes the same losses."""


def report(spec: CalibrationRuns, _: Emit) -> None:
    """Write every run of ``spec`` to each of its trackers that can be written to; called by an executor."""
    for name in spec.trackers:
        if name in WRITERS:
            WRITERS[name](spec)


def list_points(run: Run) -> Iterator[Point]:
    """The losses of a run by examples seen, increasing."""
    points: dict[int, dict[str, float]] = {}
    for name, examples, losses in (
        (VALIDATION, run.examples, run.validation_loss),
        (TRAINING, run.train_examples, run.train_loss),
    ):
        for each, loss in zip(examples, losses, strict=True):
            points.setdefault(each, {})[name] = loss
    yield from sorted(points.items())


def write_tensorboard(spec: CalibrationRuns) -> None:
    """A folder of events for each run, below ``tensorboard/calibration`` in the study, over the examples seen."""
    from torch.utils.tensorboard import SummaryWriter

    folder = Path(spec.folder, "tensorboard", GROUP)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier decision
    for run in spec.runs:
        with SummaryWriter(str(folder / f"{run.member.setting} {run.member.id}".replace("/", "-"))) as writer:
            for examples, losses in list_points(run):
                for name, loss in losses.items():
                    writer.add_scalar(name, loss, examples)


def write_trackio(spec: CalibrationRuns) -> None:
    """A run for each member, in the group `GROUP` of the study's project."""
    import trackio

    for run in spec.runs:
        trackio.init(project=spec.project, name=run.member.id, group=GROUP, config=_describe(run), resume="allow")
        for examples, losses in list_points(run):
            trackio.log(losses, step=examples)
        trackio.finish()


def write_wandb(spec: CalibrationRuns) -> None:
    """A run for each member, in the group `GROUP` of the study's project; offline with ``WANDB_MODE=offline``."""
    import wandb

    for run in spec.runs:
        started = wandb.init(
            project=spec.project,
            id=run.member.id,
            name=str(run.member.setting),
            group=GROUP,
            config=_describe(run),
            dir=spec.folder,
            resume="allow",
        )
        for examples, losses in list_points(run):
            started.log(losses, step=examples)
        started.finish()


def _describe(run: Run) -> dict[str, object]:
    return {**dict(run.member.allocation.ranks), "learning_rate": run.member.learning_rate, "status": run.status}


WRITERS: dict[str, Callable[[CalibrationRuns], None]] = {
    "tensorboard": write_tensorboard,
    "trackio": write_trackio,
    "wandb": write_wandb,
}
"""How calibration is written to each tracker, by its name; any other gets the final run alone."""
