"""The model of a final run: PEFT's LoRA on the chosen linears, its parameters by name and role, its optimizer."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.nn import Parameter, init
from transformers import PreTrainedModel

from marslora import optim
from marslora.adapters._base import stream
from marslora.adapters.lora import MAGNITUDE
from marslora.core import kinds
from marslora.core.errors import ConfigError
from marslora.core.patterns import lora_config_dict
from marslora.core.spec import FinalSpec
from marslora.models.discovery import discover
from marslora.models.loading import LoadedModel
from marslora.optim._base import AbstractOptimizer

ADAPTER = "default"
"""The name PEFT gives a model's only adapter."""


class Trainable(NamedTuple):
    """One trained parameter."""

    name: str
    """``<module path>.lora_A``, ``.lora_B`` or ``.lora_magnitude_vector``; of a module trained whole
    ``<module path>.weight`` or another of its parameters."""
    module: str
    """The path, in the model, of the linear that it belongs to."""
    role: str
    """A, B, magnitude or full."""
    parameter: Parameter


def lora_config(spec: FinalSpec) -> LoraConfig:
    """PEFT's settings for a final run."""
    ranks = {name: rank for name, rank in spec.module_ranks.items() if name not in spec.full_modules}
    if not ranks:
        raise ConfigError(
            f"The allocation {spec.allocation} adapts no linear layer. At least one part that is not in `full` "
            f"{list(spec.training.full)} must have a rank above 0."
        )
    return LoraConfig(
        **lora_config_dict(
            ranks,
            spec.training.alpha_over_rank,
            spec.full_modules,
            spec.training.dropout,
            **spec.training.lora_variant,
        )
    )


@contextlib.contextmanager
def adapted(loaded: LoadedModel, spec: FinalSpec) -> Iterator[PeftModel]:
    """The loaded model with fresh adapters; afterwards it is what it was, since others may hold it."""
    if spec.training.adapter.name != "lora":
        raise ConfigError(f"The final run trains `lora` adapters, `adapter` is `{spec.training.adapter.name}`.")
    base = loaded.model
    before = {name: module for name, module in base.named_modules() if name in spec.full_modules}
    use_cache = getattr(base.config, "use_cache", None)
    model = _adapt(base, spec)
    try:
        yield model
    finally:
        model.unload()
        for name, module in before.items():
            base.set_submodule(name, module)
        _recompute(base, False)
        base.config.use_cache = use_cache
        base.requires_grad_(False).eval()


def _adapt(base: PreTrainedModel, spec: FinalSpec) -> PeftModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks for `is_gradient_checkpointing` by its old name
        model = get_peft_model(base, lora_config(spec))
    for trainable in trainables(model):
        if trainable.role == "full":  # as LoRA's factors, it is trained in float32 whatever the model's dtype
            trainable.parameter.data = trainable.parameter.data.float()
        elif trainable.role == "A":
            _draw(trainable, spec.seed)
    _recompute(base, spec.training.gradient_checkpointing)
    return model


@torch.no_grad()
def _draw(trainable: Trainable, seed: int) -> None:
    """Draw A as PEFT does, but from the stream that a calibration run of this seed has for this module."""
    drawn_RI = torch.empty(trainable.parameter.shape)
    init.kaiming_uniform_(drawn_RI, a=math.sqrt(5), generator=stream(seed, trainable.module, "lora_A"))
    trainable.parameter.copy_(drawn_RI)


def _recompute(base: PreTrainedModel, wanted: bool) -> None:
    """Switch recomputation of activations, under the name it had in `transformers` before 5.23, which still works."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if wanted:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        elif base.is_gradient_checkpointing:
            base.gradient_checkpointing_disable()


def trainables(model: nn.Module) -> list[Trainable]:
    """Every trained parameter of a PEFT model, in the model's order."""
    return [_trainable(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _trainable(name: str, parameter: Parameter) -> Trainable:
    path = name.removeprefix("base_model.model.")
    if f".modules_to_save.{ADAPTER}." in path:
        module, _, rest = path.partition(f".modules_to_save.{ADAPTER}.")
        return Trainable(f"{module}.{rest}", module, "full", parameter)
    module, _, factor = path.removesuffix(f".{ADAPTER}.weight").rpartition(".")
    role = "magnitude" if factor == MAGNITUDE else factor.removeprefix("lora_")
    return Trainable(f"{module}.{factor}", module, role, parameter)


def build_optimizer(model: PeftModel, part_of: dict[str, str], spec: FinalSpec) -> AbstractOptimizer:
    """The optimizer that the spec names, with one group per part and role, each with its part's learning rate."""
    training = spec.training
    groups: dict[tuple[str, str], list[Parameter]] = defaultdict(list)
    for trainable in trainables(model):
        groups[part_of.get(trainable.module, ""), trainable.role].append(trainable.parameter)
    kind = kinds.load(optim, training.optimizer.name, AbstractOptimizer)
    options = {"weight_decay": training.weight_decay, **training.optimizer.options}
    optimizer = kind(
        [
            {
                "params": parameters,
                "part": part,
                "role": role,
                "lr": training.part_learning_rates.get(part, training.learning_rate),
            }
            for (part, role), parameters in groups.items()
        ],
        **options,
    )
    if optimizer.looks_back:
        raise ConfigError(
            f"`optimizer` {training.optimizer.name} needs gradients at two points, which Trainer does not give. "
            "Choose its variant that does not, or another optimizer."
        )
    return optimizer


def part_of_linears(loaded: LoadedModel, spec: FinalSpec) -> dict[str, str]:
    """Part of every linear of a model that is not adapted yet; `ConfigError` for a learning rate of no part."""
    info = discover(loaded.model)
    known = [part.name for part in info.parts]
    unknown = sorted(set(spec.training.part_learning_rates) - set(known))
    if unknown:
        raise ConfigError(f"`part_learning_rates` names {unknown}; the parts of {info.architecture} are {known}.")
    return dict(info.part_of())
