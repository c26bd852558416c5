"""What alignment trained, as one small file: the projector, and the language model's change as products of low rank."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

PROJECTOR = "multi_modal_projector."


def pack(core: nn.Module, scale: float) -> dict[str, Tensor]:
    """Tensors in bfloat16: the projector's own, `MODULE.down` [r, in] and `MODULE.up` [out, r] of adapted modules.

    Args:
        core: The model with PEFT's LoRA layers in its language model.
        scale: What their product is multiplied by; it goes into `up`.
    """
    tensors = {n: t for n, t in core.state_dict().items() if n.startswith(PROJECTOR)}
    for name, module in core.named_modules():
        if hasattr(module, "lora_A"):
            tensors[f"{name}.down"] = module.lora_A["default"].weight
            tensors[f"{name}.up"] = scale * module.lora_B["default"].weight
    return {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}


def apply(core: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put the projector into a model without adapters and add the products to its weights.

    Raises:
        KeyError: If the tensors are of another model.
    """
    own = core.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name.endswith(".up"):
                module = name.removesuffix(".up")
                own[f"{module}.weight"].add_(tensor.float() @ tensors[f"{module}.down"].float())
            elif not name.endswith(".down"):
                own[name].copy_(tensor)


def save(core: nn.Module, path: Path, scale: float) -> None:
    save_file(pack(core, scale), path)


def load_into(core: nn.Module, path: Path) -> None:
    apply(core, load_file(path))
