"""Continuing a calibration run: its adapter, its optimizer's moments, and how many examples it has seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from peft.utils import set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from marslora.adapters import PREFIX
from marslora.adapters.lora import MAGNITUDE
from marslora.core.errors import StudyError
from marslora.methods import AbstractChange, PackedModel
from marslora.optim import AbstractOptimizer

WEIGHTS, OPTIMIZER, STATE = "adapter_model.safetensors", "optimizer.safetensors", "state.json"


_WAY_OUT = "Remove the folder to train that calibration run again."
"""What to do about a checkpoint that cannot be continued."""


class StartingPoint(NamedTuple):
    """Where a run begins."""

    examples: int = 0
    step: int = 0


def read_starting_point(folder: Path | None) -> StartingPoint:
    """Return how far the run in ``folder`` had got. Raises `StudyError` if the folder holds no checkpoint."""
    if folder is None:
        return StartingPoint()
    try:
        state = json.loads((folder / STATE).read_text())
        return StartingPoint(int(state["examples"]), int(state["step"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"`start_folder` {folder} must hold a checkpoint: {STATE} {_why(error)}. {_WAY_OUT}") from None


def load_weights(change: AbstractChange, folder: Path) -> None:
    """Give ``change`` the adapter in ``folder``. Raises `StudyError` if its ranks or modules are others."""
    weights = _load(folder / WEIGHTS)
    if isinstance(change, PackedModel):
        change.load_member({key.removeprefix(PREFIX): tensor for key, tensor in weights.items()})
        return
    try:
        result = set_peft_model_state_dict(change.model, weights)
    except RuntimeError as error:
        raise StudyError(
            f"The adapter in {folder} must have this run's ranks: {str(error).splitlines()[-1].strip()}. {_WAY_OUT}"
        ) from None
    if result.unexpected_keys:
        raise StudyError(
            f"The adapter in {folder} must hold no more than this run trains, found "
            f"{result.unexpected_keys[0]}. {_WAY_OUT}"
        )
    known = {
        name.replace(f"{MAGNITUDE}.default.weight", MAGNITUDE).replace(".default", "")
        for name, parameter in change.model.named_parameters()
        if parameter.requires_grad
    }
    absent = {name.replace(".modules_to_save", "") for name in known} - set(weights)
    if absent:
        raise StudyError(
            f"The adapter in {folder} must hold {len(known)} weights, but lacks {len(absent)}, e.g. {min(absent)}. "
            f"{_WAY_OUT}"
        )


def load_moments(optimizer: AbstractOptimizer, change: AbstractChange, folder: Path, step: int) -> None:
    """Give ``optimizer`` the state in ``folder``, which was written after ``step`` updates."""
    found = _load(folder / OPTIMIZER)
    for trainable in change.trainables():
        state = {
            name: change.moment_from_checkpoint(trainable, _moment(found, f"{trainable.name}.{name}", folder))
            for name in optimizer.buffers(trainable.parameter)
        }
        own_step = found.get(f"{trainable.name}.step", torch.tensor(float(step)))
        optimizer.load_member_state(trainable.parameter, 0, {**state, "step": own_step})


def _moment(found: dict[str, Tensor], key: str, folder: Path) -> Tensor:
    if key not in found:
        raise StudyError(
            f"{folder / OPTIMIZER} must hold `{key}`, but comes from another optimizer or other ranks. {_WAY_OUT}"
        )
    return found[key]


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise StudyError(
            f"`start_folder` {path.parent} must hold a whole checkpoint: {path.name} {_why(error)}. {_WAY_OUT}"
        ) from None


def _why(error: Exception) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
