"""Check how the processes of a final run were launched, before anything is read."""

from __future__ import annotations

import os
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

from marslora.core.errors import ConfigError, OutOfMemoryError
from marslora.core.spec import ModelSpec
from marslora.models.loading import resolve_device

SHARDERS = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
"""The variables by which `accelerate launch` says that parameters are divided into pieces -> who divides them."""
NO_PIECES = (
    "every process of a final run holds the whole frozen model, which is not divided into pieces. Quantise it "
    "(--quantize nf4), use devices with more memory"
)


def check_launch(model: ModelSpec) -> None:
    """Raise `ConfigError` if parameters were to be divided into pieces, and `OutOfMemoryError` for a model that surely
    does not fit: its weights on disk are larger than the memory of the device, or of the machine for all its processes.
    """
    for variable, name in SHARDERS.items():
        if os.environ.get(variable, "").lower() in ("1", "true", "yes"):
            raise ConfigError(
                f"the processes were launched with {name} ({variable}), but {NO_PIECES}, or use torchrun."
            )
    num_bytes = _weigh(Path(model.path).expanduser())
    if model.quantize is not None or not num_bytes:
        return
    device, num_local = resolve_device(model.device), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type == "cuda":
        room, needed = torch.cuda.get_device_properties(device).total_memory, num_bytes
    else:
        room, needed = int(psutil.virtual_memory().total), num_local * num_bytes
    if needed > room:
        processes = f" in each of {num_local} processes" if needed > num_bytes else ""
        raise OutOfMemoryError(
            f"{model.path} takes {num_bytes / 1e9:.3g} GB{processes}, and {device} has {room / 1e9:.3g} GB, "
            f"but {NO_PIECES}, or fewer processes."
        )


def _weigh(folder: Path) -> int:
    """Bytes of the weights in a folder; 0 if it is none."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) if folder.is_dir() else 0
