"""A model adapted by PEFT, with its trained parameters by name and role."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn
from torch.nn import Parameter

from marslora.adapters import TOKEN_ROWS
from marslora.methods._base import AbstractChange, Trainable

ADAPTER = "default"
"""The name PEFT gives to the only adapter of a model."""
_ROLES = {"lora_A": "A", "lora_B": "B", "lora_magnitude_vector": "magnitude", TOKEN_ROWS: "tokens"}
"""Roles of parameters by their names in PEFT."""


class PeftChange(AbstractChange):
    """A `PeftModel` with one adapter."""

    model: PeftModel

    def __init__(self, base: nn.Module, model: PeftModel, whole: dict[str, nn.Module]):
        """Wrap ``model``, which PEFT made from ``base``. ``whole`` are the modules by path that it trains copies of."""
        self.base, self.model, self._whole = base, model, whole
        for trainable in self.trainables():
            if trainable.role in ("full", "tokens"):  # like the factors of LoRA, in float32 whatever the model's dtype
                trainable.parameter.data = trainable.parameter.data.float()

    def trainables(self) -> list[Trainable]:
        """Return every trained parameter, in the model's order."""
        return trainables(self.model)

    def disabled(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context manager of PEFT that disables its adapter."""
        disabled: contextlib.AbstractContextManager[Any] = self.model.disable_adapter()
        return disabled

    def save(self, folder: Path) -> None:
        """Write the adapter folder of PEFT."""
        self.model.save_pretrained(str(folder), save_embedding_layers=False)

    def remove(self) -> None:
        """Restore the model, including modules trained whole, of which PEFT would leave the trained copies."""
        self.model.unload()
        for path, module in self._whole.items():
            self.base.set_submodule(path, module)


def trainables(model: nn.Module) -> list[Trainable]:
    """Return every trained parameter of a PEFT model, in the model's order."""
    return [_trainable(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _trainable(name: str, parameter: Parameter) -> Trainable:
    path = name.removeprefix("base_model.model.")
    if f".modules_to_save.{ADAPTER}." in path:
        module, _, rest = path.partition(f".modules_to_save.{ADAPTER}.")
        return Trainable(f"{module}.{rest}", module, "full", parameter)
    module, _, factor = path.removesuffix(".weight").removesuffix(f".{ADAPTER}").rpartition(".")
    module = module.removesuffix(".token_adapter")
    return Trainable(f"{module}.{factor}", module, _ROLES.get(factor, "other"), parameter)
