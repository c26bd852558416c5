"""An untrained adapter folder that carries per-part ranks into tools that have no setting for them.

Such tools continue training from a PEFT adapter folder and keep the ranks in it. A is initialised as in PEFT and B is
zero, so the adapter does not change the model before training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from marslora.core.parts import LinearInfo, ModelInfo
from marslora.core.seeds import derive
from marslora.exporters._settings import Settings, write


def write_init_adapter(settings: Settings, info: ModelInfo, output: Path) -> Path:
    """Write ``output/init_adapter`` (adapter_config.json and float32 weights) and return that folder."""
    folder = output / "init_adapter"
    config = {"peft_type": "LORA", "base_model_name_or_path": None, "inference_mode": False, **settings.lora}
    write(folder, "adapter_config.json", json.dumps(config, indent=2) + "\n")
    save_file(_weights(settings, info), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def _weights(settings: Settings, info: ModelInfo) -> dict[str, np.ndarray[Any, Any]]:
    weights = {}
    linears = {linear.name: linear for part in info.parts for linear in part.linears}
    for name, rank in settings.module_ranks.items():
        prefix = f"base_model.model.{name}"
        weights[f"{prefix}.lora_A.weight"] = _initial_a(linears[name], rank)
        weights[f"{prefix}.lora_B.weight"] = np.zeros((linears[name].outputs, rank), np.float32)
    return weights


def _initial_a(linear: LinearInfo, rank: int) -> np.ndarray[Any, Any]:
    """Kaiming-uniform with a = sqrt 5, PEFT's choice: uniform in +-1/sqrt(inputs). Shape (rank, inputs)."""
    bound = 1 / np.sqrt(linear.inputs)
    draw = np.random.default_rng(derive(0, "init_adapter", linear.name)).uniform(-bound, bound, (rank, linear.inputs))
    return draw.astype(np.float32)
