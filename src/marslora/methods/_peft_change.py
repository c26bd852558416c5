"""A model changed by PEFT: its trained parameters by name and role."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn
from torch.nn import Parameter

from marslora.methods._base import AbstractChange, Trainable

ADAPTER = "default"
"""The name PEFT gives a model's only adapter."""
_ROLES = {"lora_A": "A", "lora_B": "B", "lora_magnitude_vector": "magnitude"}


class PeftChange(AbstractChange):
    """A `PeftModel` with one adapter."""

    model: PeftModel

    def __init__(self, base: nn.Module, model: PeftModel, whole: dict[str, nn.Module]):
        """Take over ``model``, made of ``base``; ``whole`` are the modules, by path, that it trains copies of."""
        self.base, self.model, self._whole = base, model, whole
        for one in self.trainables():
            if one.role == "full":  # as LoRA's factors, it is trained in float32 whatever the model's dtype
                one.parameter.data = one.parameter.data.float()

    def trainables(self) -> list[Trainable]:
        """Every trained parameter, in the model's order."""
        return trainables(self.model)

    def disabled(self) -> contextlib.AbstractContextManager[Any]:
        """PEFT's own way."""
        disabled: contextlib.AbstractContextManager[Any] = self.model.disable_adapter()
        return disabled

    def save(self, folder: Path) -> None:
        """PEFT's own folder."""
        self.model.save_pretrained(str(folder), save_embedding_layers=False)

    def remove(self) -> None:
        """Also put the modules back that were trained whole: PEFT would leave the trained ones."""
        self.model.unload()
        for path, module in self._whole.items():
            self.base.set_submodule(path, module)


def trainables(model: nn.Module) -> list[Trainable]:
    """Every trained parameter of a PEFT model, in the model's order."""
    return [_trainable(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _trainable(name: str, parameter: Parameter) -> Trainable:
    path = name.removeprefix("base_model.model.")
    if f".modules_to_save.{ADAPTER}." in path:
        module, _, rest = path.partition(f".modules_to_save.{ADAPTER}.")
        return Trainable(f"{module}.{rest}", module, "full", parameter)
    module, _, factor = path.removesuffix(".weight").removesuffix(f".{ADAPTER}").rpartition(".")
    return Trainable(f"{module}.{factor}", module, _ROLES.get(factor, "other"), parameter)
