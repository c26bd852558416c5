"""Trainer's checkpoints. One is complete only if it also holds `progress.json`, which is written last."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

from marslora.core.content import find_damage
from marslora.core.errors import MarsloraError
from marslora.core.files import write_text
from marslora.core.record import Record

MARKER = "progress.json"


class FinalRunState(Record):
    """What a continued run needs to know and Trainer does not save."""

    spec_digest: str
    started_at_examples: int
    base_validation_loss: float
    base_validation_accuracy: float
    examples: tuple[int, ...] = ()
    validation_curve: tuple[float, ...] = ()
    base_validation_metric: float | None = None
    """Of generated answers; None if the loss decides."""
    metric_curve: tuple[float, ...] = ()
    """The metric of generated answers at ``examples``; empty if the loss decides."""
    train_examples: tuple[int, ...] = ()
    train_curve: tuple[float, ...] = ()
    """Training losses as Trainer logs them, at ``train_examples``."""
    seconds: float = 0.0
    """Wall time spent so far, earlier starts included."""

    @property
    def best(self) -> int | None:
        """The index of the best validation point after the first step: that of the highest metric if there is one, and
        of the lowest loss among equals; None if there is none."""
        return min(self._finite_points(), key=self._rank_point, default=None)

    @property
    def lowest(self) -> int | None:
        """The index of the point of the lowest validation loss after the first step; None if there is none."""
        return min(self._finite_points(), key=self.validation_curve.__getitem__, default=None)

    def _finite_points(self) -> list[int]:
        trained = [point for point, examples in enumerate(self.examples) if examples]
        return [point for point in trained if math.isfinite(self.validation_curve[point])]

    def _rank_point(self, point: int) -> tuple[float, float]:
        return (-self.metric_curve[point] if self.metric_curve else 0.0, self.validation_curve[point])

    def add_validation(self, examples: int, loss: float, metric: float | None = None) -> FinalRunState:
        """Return the state with another validation point."""
        points = {"examples": (*self.examples, examples), "validation_curve": (*self.validation_curve, loss)}
        measured = {} if metric is None else {"metric_curve": (*self.metric_curve, metric)}
        return self.model_copy(update={**points, **measured})

    def add_training(self, examples: int, loss: float) -> FinalRunState:
        """Return the state with another training loss."""
        points = {"train_examples": (*self.train_examples, examples), "train_curve": (*self.train_curve, loss)}
        return self.model_copy(update=points)

    def describe_losses(self) -> str:
        """The latest losses in words; empty if there are none."""
        named = (("validation loss", self.validation_curve), ("training loss", self.train_curve))
        return ", ".join(f"{name} {curve[-1]:.3f}" for name, curve in named if curve)


def mark_complete(checkpoint: Path, progress: FinalRunState) -> None:
    """Mark ``checkpoint`` as complete, after everything else in it has been written. Raises `WriteError`."""
    write_text(checkpoint / MARKER, progress.to_json())


def find_newest(folder: Path, spec_digest: str) -> tuple[Path, FinalRunState] | None:
    """The latest complete checkpoint of this spec in ``folder`` with its state; None if there is none."""
    return max(_list_complete(folder, spec_digest), key=lambda item: _read_step(item[0]), default=None)


def remove_broken(folder: Path, spec_digest: str) -> None:
    """Delete incomplete checkpoints and those of other specs, so that Trainer's limit does not remove complete ones."""
    keep = {path for path, _ in _list_complete(folder, spec_digest)}
    for path in folder.glob("checkpoint-*"):
        if path not in keep:
            shutil.rmtree(path, ignore_errors=True)


def _list_complete(folder: Path, spec_digest: str) -> Iterator[tuple[Path, FinalRunState]]:
    for path in folder.glob("checkpoint-*"):
        try:
            progress = FinalRunState.load(path / MARKER)
        except (OSError, json.JSONDecodeError, MarsloraError):
            continue
        if progress.spec_digest == spec_digest and find_damage(path) is None:
            yield path, progress


def _read_step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
