"""A member's checkpoint: a plain PEFT adapter folder that also holds the optimizer's state and `state.json`.

The checkpoints of several members are written together: every folder is written under a temporary name, then a list of
them, then each is renamed to its place. After a crash either all checkpoints are the old ones, or `recover_checkpoints`
makes all of them the new ones.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from marslora.core.errors import StudyError
from marslora.core.files import explain_write_errors, sync, sync_folder, write_text
from marslora.core.record import digest_texts

PREFIX = "base_model.model."
"""What PEFT puts before every module path in the names of stored tensors."""
WEIGHTS, OPTIMIZER, STATE = "adapter_model.safetensors", "optimizer.safetensors", "state.json"
"""Files of a checkpoint. The first is named as PEFT names it, so that a checkpoint is an adapter PEFT can load."""


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of one member. Its tensors are on the CPU."""

    weights: dict[str, Tensor]
    """Weights by module path and PEFT key, e.g. ``model.layers.0.q_proj.lora_A.weight``."""
    moments: dict[str, Tensor]
    """Optimizer state by module path, factor and name, e.g. ``model.layers.0.q_proj.lora_A.exp_avg``."""
    state: dict[str, Any]
    """The content of `state.json`: ``examples``, ``step``, ``status``, ``seed`` and what the engine adds."""


def write_checkpoints(root: Path, checkpoints: Mapping[str, tuple[Checkpoint, dict[str, Any] | None]]) -> None:
    """Write ``{member: (checkpoint, LoraConfig keywords)}`` to ``root/<member>``: after a crash, all or none.

    An adapter that PEFT has no form for has None in place of the keywords: its folder does not say that PEFT reads it.
    """
    with explain_write_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        for member, (checkpoint, config) in checkpoints.items():
            _write_folder(_temporary_folder(root, member), checkpoint, config)
        sync(root)
        marker = root / f".commit-{digest_texts(*checkpoints)}"
        write_text(marker, json.dumps(list(checkpoints)))
        _put_in_place(root, checkpoints)
        marker.unlink()


def recover_checkpoints(root: Path, members: Iterable[str]) -> None:
    """Complete an interrupted write of these members, or discard it if not all folders had been written."""
    mine = set(members)
    for marker in root.glob(".commit-*"):
        try:
            listed = json.loads(marker.read_text())
            is_mine = bool(mine & set(listed))
        except (ValueError, TypeError):  # damaged from outside: what it lists is not known to be whole
            marker.unlink()
            continue
        if is_mine:
            _put_in_place(root, listed)
            marker.unlink()
    for member in mine:
        shutil.rmtree(_temporary_folder(root, member), ignore_errors=True)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the checkpoint in ``folder``, or None if there is none. Raises `StudyError` for a damaged one."""
    if not (folder / STATE).exists():
        return None
    try:
        weights = load_file(folder / WEIGHTS)
        state = json.loads((folder / STATE).read_text())
        if not isinstance(state, dict):
            raise ValueError(f"{STATE} must be a mapping, found {state!r}")
        return Checkpoint(
            weights={key.removeprefix(PREFIX): tensor for key, tensor in weights.items()},
            moments=load_file(folder / OPTIMIZER),
            state=state,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise StudyError(
            f"The checkpoint in {folder} cannot be read ({error}). Remove the folder to train this member again."
        ) from None


def _write_folder(folder: Path, checkpoint: Checkpoint, config: dict[str, Any] | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    weights = {PREFIX + key: tensor.contiguous() for key, tensor in checkpoint.weights.items()}
    moments = {key: tensor.contiguous() for key, tensor in checkpoint.moments.items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    save_file(moments, folder / OPTIMIZER, metadata={"format": "pt"})
    if config is not None:
        LoraConfig(**config, inference_mode=True).save_pretrained(str(folder))
    (folder / STATE).write_text(json.dumps(checkpoint.state, indent=1))
    sync_folder(folder)


def _put_in_place(root: Path, members: Iterable[str]) -> None:
    for member in members:
        written = _temporary_folder(root, member)
        if written.exists():
            shutil.rmtree(root / member, ignore_errors=True)
            written.rename(root / member)
    sync(root)


def _temporary_folder(root: Path, member: str) -> Path:
    return root / f".next-{member}"
