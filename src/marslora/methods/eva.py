"""LoRA that starts at the principal directions of each layer's inputs, with ranks by their variance (EVA)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from peft import EvaConfig, LoraConfig
from peft.tuners.lora.eva import HashHook, SVDHook, get_eva_state_dict
from pydantic import Field
from torch import Tensor, nn

from marslora.core.errors import ConfigError
from marslora.core.labels import IGNORED
from marslora.core.linears import read_linear_sizes
from marslora.core.patterns import lora_config_dict
from marslora.methods._base import AbstractMethod, AdapterPlan, Batch
from marslora.methods._context import BatchContext
from marslora.methods._layers import AdaptedModel
from marslora.methods._mixture import MixtureLinear


class Eva(AbstractMethod):
    """EVA (Paischer et al. 2024, arXiv 2410.07170), with PEFT's incremental decomposition of the first batches."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractMethod.Config):
        """How ranks are distributed, and what the directions are computed from."""

        rho: Annotated[float, Field(ge=1)] = 2.0
        """The largest rank of a linear as a multiple of its rank in the allocation. The sum of ranks stays the same,
        and 1 keeps every rank."""
        tau: Annotated[float, Field(gt=0, le=1)] = 0.99
        """A direction counts as found when the cosine between successive estimates exceeds this."""
        use_label_mask: bool = True
        """Whether the language model only uses tokens that the loss counts. Towers and projectors use all tokens."""
        num_batches: Annotated[int, Field(gt=0)] = 16
        """The number of batches of training rows to read."""

    config: Config

    merges = "yes"
    serves = "any server of LoRA (vLLM up to rank 512); merged, any server"

    def __init__(self, /, **options: Any):
        super().__init__(**options)
        self.num_batches = self.config.num_batches

    def apply(self, model: nn.Module, plan: AdapterPlan, batches: Sequence[Batch] = ()) -> EvaModel:
        """Adapt the model with ranks by variance. Linears whose inputs vary little may get rank 0."""
        directions = self._components(model, plan, batches)
        plan = plan.model_copy(
            update={"ranks": {path: len(directions[path]) for path in plan.ranks if len(directions[path])}}
        )
        change = EvaModel(model, plan, BatchContext(model))
        for path in plan.ranks:
            change.insert_layer(path, lambda base, at, context: MixtureLinear(base, at, context, plan))
            layer = change.layers[path]
            assert isinstance(layer, MixtureLinear)
            layer.lora_A[0].data.copy_(directions[path])
        change.inject_whole_modules()
        return change

    def count(self, sizes: Mapping[str, tuple[int, int]], plan: AdapterPlan) -> int:
        """Count ``r (I + O)`` for each linear. The ranks EVA chose are in the plan of the change."""
        return sum(rank * sum(sizes[path]) for path, rank in plan.ranks.items())

    def _components(self, model: nn.Module, plan: AdapterPlan, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Return the directions (rank, I) of every linear by path."""
        rho = self.config.rho
        for path, rank in plan.ranks.items():
            if round(rho * rank) > (inputs := read_linear_sizes(model.get_submodule(path))[0]):
                raise ConfigError(
                    f"EVA needs rho x rank = {round(rho * rank)} directions, but `{path}` has only {inputs} inputs. "
                    "Lower the rank of its part, or `rho`."
                )
        config = LoraConfig(
            **lora_config_dict(plan.ranks, plan.scale),
            init_lora_weights="eva",
            eva_config=EvaConfig(rho=rho, tau=self.config.tau),
        )
        limit, forwards = 50 * len(batches), 0

        def forward(module: nn.Module, batch: Batch) -> None:
            nonlocal forwards
            forwards += 1
            if forwards > limit:
                raise ConfigError(
                    f"EVA found no stable directions in {limit} forwards of {len(batches)} batches. Either a linear "
                    "reads fewer inputs in a batch than `rho` times its rank, or `tau` is too close to 1. Raise "
                    "`batch_size` or `num_batches`, or lower `rho`, `tau` or the ranks."
                )
            module(**batch)

        try:
            with contextlib.redirect_stdout(io.StringIO()):  # PEFT prints a line for every batch that is too short
                directions: dict[str, Tensor] = get_eva_state_dict(
                    model,
                    list(batches),
                    config,
                    forward_fn=forward,
                    prepare_model_inputs_fn=self._mask,
                    prepare_layer_inputs_fn=_inputs,
                    show_progress_bar=False,
                )
        except IndexError:
            raise ConfigError(
                f"EVA needs the inputs of all {len(plan.ranks)} adapted linears, but the first of {len(batches)} "
                "batches does not use some of them. Give rank 0 to parts that rows without pictures do not use, or "
                "start the data with rows that use them."
            ) from None
        finally:
            _unhook(model)
        return directions

    def _mask(self, batch: Batch, _: LoraConfig) -> Tensor:
        """Return which tokens of a batch are used, (B, T)."""
        mask_BT: Tensor = batch["attention_mask"].bool()
        labels = batch["labels"]  # of an encoder-decoder model, labels are not the tokens that are masked
        wanted = self.config.use_label_mask and labels.shape == mask_BT.shape
        return mask_BT & (labels != IGNORED) if wanted else mask_BT


class EvaModel(AdaptedModel):
    """A model with plain LoRA that EVA initialised."""

    def save(self, folder: Path) -> None:
        """Write a plain LoRA folder for PEFT."""
        self.save_plain(folder)


def _unhook(model: nn.Module) -> None:
    """Remove the hooks that PEFT leaves on a model if it raises an error."""
    for module in model.modules():
        for key, hook in list(module._forward_hooks.items()):
            if isinstance(hook, HashHook | SVDHook):
                del module._forward_hooks[key]


def _inputs(inputs: Any, mask_BT: Tensor, _: str) -> Tensor:
    """Return what a linear read, (N, I). PEFT's default would apply the mask of the text to towers too."""
    x = inputs if isinstance(inputs, Tensor) else inputs[0]
    chosen = x[mask_BT] if x.shape[:-1] == mask_BT.shape else x.flatten(0, -2)
    return torch.as_tensor(chosen)
