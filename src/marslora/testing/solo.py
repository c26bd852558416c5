"""The slow twin of the packed engine: one member on PEFT's own layers in a plain loop, without any speedup.

The engine is right if a pack trains each member to the weights that this trains (tests/twins).
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from marslora.adapters import TOKEN_ROWS, SeededDropout, TrainingPosition, member_generator
from marslora.adapters.lora import MAGNITUDE
from marslora.core.errors import ConfigError
from marslora.core.labels import IGNORED
from marslora.core.schedule import rate_factor
from marslora.core.spec import MemberSpec
from marslora.engine.pack import Base
from marslora.models.answers import at_least_float32
from marslora.optim import AbstractOptimizer, as_two_point, create_optimizer

ADAPTER = "default"
"""The name PEFT gives a model's only adapter."""


@dataclass
class Solo:
    """One member trained by PEFT."""

    base: Base
    spec: MemberSpec
    model: PeftModel
    position: TrainingPosition
    optimizer: AbstractOptimizer
    losses: list[float]
    """Mean nats per answer token of every step's batch."""

    def train(self, steps: Iterable[Sequence[dict[str, Any]]], total_steps: int) -> None:
        """Take one optimizer step for each list of collated micro-batches."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for step, batches in enumerate(steps):
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * rate_factor(step, total_steps, self.base.training, decays=self.spec.decays)
            self.losses.append(self._step(step, batches))

    def weights(self) -> dict[str, Tensor]:
        """The trained tensors by module path and PEFT key."""
        return {key: parameter.detach().clone() for key, _, parameter in self.trained()}

    def trained(self) -> Iterator[tuple[str, str, nn.Parameter]]:
        """Yield (module path and PEFT key, role, parameter) for every trained tensor."""
        return _trained(self.model)

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """Nats summed over the answer tokens of a collated batch."""
        shift = 0 if self.base.model.config.is_encoder_decoder else 1
        inputs = {name: value for name, value in batch.items() if name != "labels" or not shift}
        logits_BTV = self.model(**inputs).logits
        labels_BT = batch["labels"][:, shift:]
        wanted_BTV = logits_BTV[:, : labels_BT.shape[1]] if shift else logits_BTV
        return cross_entropy(
            at_least_float32(wanted_BTV.flatten(0, 1)), labels_BT.flatten(), ignore_index=IGNORED, reduction="sum"
        )

    def _step(self, step: int, batches: Sequence[dict[str, Any]]) -> float:
        two_point = as_two_point(self.optimizer)
        self.position.step = step
        if two_point is not None:
            with two_point.previous_point():
                self._backward(batches)
        total = self._backward(batches)
        limit = self.base.training.clip_norm
        if limit:
            norm = nn.utils.clip_grad_norm_([p for _, _, p in self.trained()], limit)
            for _, last in two_point.last_gradients() if two_point is not None else ():
                last *= min(1.0, limit / (float(norm) + 1e-6))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def _backward(self, batches: Sequence[dict[str, Any]]) -> float:
        shift = 0 if self.base.model.config.is_encoder_decoder else 1
        num_tokens = sum(int((batch["labels"][:, shift:] != IGNORED).sum()) for batch in batches)
        total = 0.0
        self.position.training = True
        for micro_step, batch in enumerate(batches):
            self.position.micro_step = micro_step
            loss = self.loss(batch) / num_tokens
            torch.autograd.backward(loss)
            total += float(loss.detach())
        self.position.training = False
        return total


@contextlib.contextmanager
def on_peft(base: Base, spec: MemberSpec) -> Iterator[Solo]:
    """The member on a base with PEFT's layers; afterwards the base is as before."""
    training = base.training
    parts = base.modules([spec])
    whole = [path for path, part in parts.items() if part in training.full]
    before = {path: base.model.get_submodule(path) for path in whole}
    settings = base.lora_settings(spec)
    if settings is None:
        raise ConfigError(f"PEFT has no form for the adapter `{training.adapter.name}`. Compare it with a pack of one.")
    model = get_peft_model(base.model, LoraConfig(**settings))
    model.eval()
    position = TrainingPosition()
    _initialise(model, base, spec, position, parts)
    trained: dict[tuple[str, str], list[nn.Parameter]] = defaultdict(list)
    for key, role, parameter in _trained(model):
        trained[_part_of(key, parts), role].append(parameter)
    groups = [
        {
            "params": parameters,
            "role": role,
            "part": part,
            "lr": spec.rate_of(part, training),
        }
        for (part, role), parameters in trained.items()
    ]
    optimizer = create_optimizer(training, groups)
    try:
        yield Solo(base, spec, model, position, optimizer, [])
    finally:
        model.unload()
        for path, module in before.items():
            base.model.set_submodule(path, module)
        base.model.requires_grad_(False).eval()


def _initialise(
    model: PeftModel, base: Base, spec: MemberSpec, position: TrainingPosition, parts: dict[str, str]
) -> None:
    """Draw A from the member's random streams, and let dropout masks depend on its counters, as a pack does."""
    inner = model.get_base_model()
    for key, role, parameter in list(_trained(model)):
        if role in ("full", "tokens"):
            parameter.data = parameter.data.to(torch.promote_types(torch.float32, parameter.dtype))
        if role != "A":
            continue
        path = key.removesuffix(".lora_A.weight")
        fresh = torch.empty(parameter.shape)
        nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=member_generator(spec.seed, path, "lora_A"))
        parameter.data.copy_(fresh)
        layer = inner.get_submodule(path)
        if not isinstance(layer, ParamWrapper):  # PEFT has no dropout for experts
            layer.lora_dropout[ADAPTER] = SeededDropout(base.member_settings(spec, parts[path]), path, position)
            layer.training = True  # DoRA asks the layer, not its dropout, whether to drop; the base below stays quiet


def _trained(model: PeftModel) -> Iterator[tuple[str, str, nn.Parameter]]:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = name.removeprefix("base_model.model.")
            if f".modules_to_save.{ADAPTER}." in key:
                yield key.replace(f".modules_to_save.{ADAPTER}.", "."), "full", parameter
            elif f".{MAGNITUDE}." in key:
                yield key.removesuffix(f".{ADAPTER}.weight"), "magnitude", parameter
            elif key.endswith(f".{TOKEN_ROWS}.{ADAPTER}"):
                yield key.removesuffix(f".{ADAPTER}"), "tokens", parameter
            else:
                yield key.replace(f".{ADAPTER}.", "."), key.split(".lora_")[1][0], parameter


def _part_of(key: str, parts: dict[str, str]) -> str:
    """The part of a trained tensor, found by the module path at the start of its key."""
    return next(part for path, part in parts.items() if key.startswith(f"{path}."))
