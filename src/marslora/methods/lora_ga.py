"""LoRA that starts along the gradient of the first batches (LoRA-GA); the saved adapter has twice the rank."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from peft import LoraConfig, LoraGAConfig
from peft.tuners.lora.loraga import preprocess_loraga
from pydantic import Field
from torch import nn

from marslora.core.patterns import exact_regex
from marslora.methods import _offset
from marslora.methods._base import AbstractMethod, AdapterPlan, Batch

_GRADIENT = "_peft_loraga_grad"
"""The attribute in which PEFT stores the gradient on a linear."""


class LoraGa(AbstractMethod):
    """LoRA-GA (Wang et al. 2024, arXiv 2407.05000), initialised by PEFT from the gradient of ``num_batches`` batches.

    The initialisation needs memory for the gradients of all adapted weights.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractMethod.Config):
        """The batches, and the options of the same names of `peft.LoraGAConfig`, which explains them."""

        num_batches: Annotated[int, Field(gt=0)] = 8
        """The number of batches of training rows whose gradient is used."""
        direction: Literal["ArBr", "A2rBr", "ArB2r", "random"] = "ArB2r"
        """Which singular vectors of the gradient A and B start at."""
        scale: Literal["stable", "weight_svd", "gd_scale", "unit"] = "stable"
        """How the initial factors are scaled."""
        stable_gamma: int = 16
        """The number gamma of the scaling ``stable``."""

    config: Config

    merges = "yes"
    serves = "any server of LoRA, at twice the trained rank; merged, any server"

    def __init__(self, /, **options: Any):
        super().__init__(**options)
        self.num_batches = self.config.num_batches

    def apply(self, model: nn.Module, plan: AdapterPlan, batches: Sequence[Batch] = ()) -> _offset.OffsetModel:
        """Start the factors at the gradient's decomposition. Linears without a gradient start as plain LoRA."""

        def train_step() -> None:
            model.eval()  # PEFT has put the frozen model, including its dropout, in training mode
            with warnings.catch_warnings():  # PEFT's hooks read gradients of outputs; pictures have none of their own
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                for batch in batches:
                    model(**batch).loss.backward()

        own = self.config
        start = LoraGAConfig(direction=own.direction, scale=own.scale, stable_gamma=own.stable_gamma)
        settings = {"init_lora_weights": "lora_ga", "lora_ga_config": start}
        preprocess_loraga(model, LoraConfig(target_modules=exact_regex(plan.ranks), **settings), train_step)
        linears = {path: model.get_submodule(path) for path in plan.ranks}
        unreached = frozenset(path for path, module in linears.items() if _GRADIENT not in vars(module))
        change = _offset.build_offset_model(model, plan, settings, unreached)
        for module in linears.values():
            vars(module).pop(_GRADIENT, None)
        return change

    def count(self, sizes: Mapping[str, tuple[int, int]], plan: AdapterPlan) -> int:
        """Count ``r (I + O)`` for each linear."""
        return sum(rank * sum(sizes[path]) for path, rank in plan.ranks.items())
