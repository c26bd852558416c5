"""Write low-rank changes as a plain LoRA folder of PEFT, which every tool that supports LoRA can load."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from marslora.adapters import PREFIX, WEIGHTS
from marslora.core.patterns import lora_config_dict
from marslora.methods._base import AdapterPlan, LowRank


def write(
    folder: Path, changes: Mapping[str, LowRank], plan: AdapterPlan, whole: Mapping[str, Tensor], base: nn.Module
) -> None:
    """Write ``changes`` by module path, and the parameters trained ``whole`` by their paths, to ``folder``.

    The folder has one scale, the plan's. B is multiplied to make up for another one. Changes of rank 0 are left out.
    """
    changes = {path: low for path, low in changes.items() if low.A_RI.shape[0]}
    tensors = dict(whole)
    for path, low in changes.items():
        tensors[f"{path}.lora_A.weight"] = low.A_RI
        tensors[f"{path}.lora_B.weight"] = low.B_OR if low.scale == plan.scale else low.B_OR * (low.scale / plan.scale)
    write_tensors(folder, tensors, {path: low.A_RI.shape[0] for path, low in changes.items()}, plan, base)


def write_tensors(
    folder: Path,
    tensors: Mapping[str, Tensor],
    ranks: Mapping[str, int],
    plan: AdapterPlan,
    base: nn.Module,
    *,
    use_rslora: bool = False,
    use_dora: bool = False,
) -> None:
    """Write tensors by module path and PEFT key, and the settings of a `LoraConfig` with these ranks, to ``folder``.

    ``use_rslora`` and ``use_dora`` mean what they mean in `LoraConfig`.
    """
    config = LoraConfig(
        **lora_config_dict(
            ranks, plan.scale, plan.full_modules, plan.dropout, use_rslora=use_rslora, use_dora=use_dora
        ),
        inference_mode=True,
        base_model_name_or_path=getattr(getattr(base, "config", None), "_name_or_path", None),
    )
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    stored = {PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(stored, folder / WEIGHTS, metadata={"format": "pt"})


def folder_name(task: str, index: int) -> str:
    """Return a task's name as a folder name. If characters had to be replaced, the task's index comes first."""
    plain = re.sub(r"[^\w.-]+", "_", task).strip("._")
    return task if plain == task else f"{index}-{plain}"
