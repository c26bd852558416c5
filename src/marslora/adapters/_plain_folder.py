"""Low-rank changes as a plain LoRA folder of PEFT's, which every tool that knows LoRA can load."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from peft import LoraConfig
from safetensors.torch import save_file

from marslora.adapters._method import LowRank
from marslora.adapters._peft_format import PREFIX, WEIGHTS
from marslora.core.patterns import lora_config_dict

if TYPE_CHECKING:
    from marslora.adapters._graft import GraftedModel


def write(folder: Path, changes: Mapping[str, LowRank], change: GraftedModel) -> None:
    """Write ``changes`` by module path, and what ``change`` trained whole, to ``folder``.

    All have the plan's scale there; another one goes into B.
    """
    plan = change.plan
    ranks = {path: low.A_RI.shape[0] for path, low in changes.items()}
    config = LoraConfig(
        **lora_config_dict(ranks, plan.scale, plan.full_modules, plan.dropout),
        inference_mode=True,
        base_model_name_or_path=getattr(getattr(change.base, "config", None), "_name_or_path", None),
    )
    tensors = {f"{path}.{name}": tensor for path, low in changes.items() for name, tensor in _factors(low, plan.scale)}
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    whole = {PREFIX + name: tensor for name, tensor in (tensors | change.whole_state()).items()}
    save_file({k: v.cpu().contiguous() for k, v in whole.items()}, folder / WEIGHTS, metadata={"format": "pt"})


def _factors(low: LowRank, scale: float) -> tuple[tuple[str, LowRank], ...]:
    B_OR = low.B_OR if low.scale == scale else low.B_OR * (low.scale / scale)
    return ("lora_A.weight", low.A_RI), ("lora_B.weight", B_OR)  # type: ignore[return-value]


def folder_name(task: str, place: int) -> str:
    """A task's name as the name of a folder; its place stands before it where it had to be changed."""
    plain = re.sub(r"[^\w.-]+", "_", task).strip("._")
    return task if plain == task else f"{place}-{plain}"
