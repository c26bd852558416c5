"""Continue a calibration run: load its adapter, its optimizer's moments, and how many examples it has seen."""

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


_WAY_OUT = "Remove the folder and run the command again, which trains that calibration run anew."
"""How to recover from a checkpoint that cannot be continued."""


class StartingPoint(NamedTuple):
    """How many examples and optimizer steps a run continues after; 0 for a run that starts from scratch."""

    examples: int = 0
    step: int = 0


def read_starting_point(folder: Path | None) -> StartingPoint:
    """The progress of the run in ``folder``; without a folder, zero. Raises `StudyError` if it holds no checkpoint."""
    if folder is None:
        return StartingPoint()
    try:
        state = json.loads((folder / STATE).read_text())
        return StartingPoint(int(state["examples"]), int(state["step"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(
            f"`start_folder` {folder} must hold a checkpoint, but {STATE} {_explain_read_error(error)}. {_WAY_OUT}"
        ) from None


def load_weights(change: AbstractChange, folder: Path) -> None:
    """Load the adapter in ``folder`` into ``change``. Raises `StudyError` if its ranks or modules differ."""
    weights = _load_tensors(folder / WEIGHTS)
    if isinstance(change, PackedModel):
        change.load_member({key.removeprefix(PREFIX): tensor for key, tensor in weights.items()})
        return
    try:
        result = set_peft_model_state_dict(change.model, weights)
    except RuntimeError as error:
        raise StudyError(
            f"The adapter in {folder} must have the ranks of this run, but {str(error).splitlines()[-1].strip()}. "
            f"{_WAY_OUT}"
        ) from None
    if result.unexpected_keys:
        raise StudyError(
            f"The adapter in {folder} must hold only weights that this run trains, found "
            f"{len(result.unexpected_keys)} others, e.g. {result.unexpected_keys[0]}. {_WAY_OUT}"
        )
    known = {
        name.replace(f"{MAGNITUDE}.default.weight", MAGNITUDE).replace(".default", "")
        for name, parameter in change.model.named_parameters()
        if parameter.requires_grad
    }
    absent = {name.replace(".modules_to_save", "") for name in known} - set(weights)
    if absent:
        raise StudyError(
            f"The adapter in {folder} must hold the {len(known)} weights that this run trains, but lacks "
            f"{len(absent)}, e.g. {min(absent)}. {_WAY_OUT}"
        )


def load_moments(optimizer: AbstractOptimizer, change: AbstractChange, folder: Path, step: int) -> None:
    """Load the optimizer state in ``folder``, written after ``step`` updates. Raises `StudyError` if it differs."""
    tensors = _load_tensors(folder / OPTIMIZER)
    for trainable in change.trainables():
        state = {
            name: change.moment_from_checkpoint(trainable, _find_moment(tensors, f"{trainable.name}.{name}", folder))
            for name in optimizer.buffers(trainable.parameter)
        }
        own_step = tensors.get(f"{trainable.name}.step", torch.tensor(float(step)))
        optimizer.load_member_state(trainable.parameter, 0, {**state, "step": own_step})


def _find_moment(tensors: dict[str, Tensor], key: str, folder: Path) -> Tensor:
    if key not in tensors:
        raise StudyError(
            f"{folder / OPTIMIZER} must hold `{key}`, but does not: it comes from another optimizer or other ranks. "
            f"{_WAY_OUT}"
        )
    return tensors[key]


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise StudyError(
            f"`start_folder` {path.parent} must hold a complete checkpoint, but {path.name} "
            f"{_explain_read_error(error)}. {_WAY_OUT}"
        ) from None


def _explain_read_error(error: Exception) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
