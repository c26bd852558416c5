"""LoRA that starts along the gradient of the first batches (LoRA-GA); the saved adapter has twice the rank."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from peft import LoraConfig, LoraGAConfig
from peft.tuners.lora.loraga import preprocess_loraga
from torch import nn

from marslora.core.errors import ConfigError
from marslora.core.patterns import exact_regex
from marslora.methods import _offset
from marslora.methods._base import AbstractMethod, AdapterPlan, Batch

DIRECTIONS, SCALES = ("ArBr", "A2rBr", "ArB2r", "random"), ("stable", "weight_svd", "gd_scale", "unit")
"""The values of ``direction`` and ``scale``, which `peft.LoraGAConfig` explains."""
_GRADIENT = "_peft_loraga_grad"
"""The attribute in which PEFT stores the gradient on a linear."""


class LoraGa(AbstractMethod):
    """LoRA-GA (Wang et al. 2024, arXiv 2407.05000), initialised by PEFT from the gradient of ``num_batches`` batches.

    The initialisation needs memory for the gradients of all adapted weights.
    """

    merges = "yes"
    serves = "any server of LoRA, at twice the trained rank; merged, any server"

    def __init__(
        self, *, num_batches: int = 8, direction: str = "ArB2r", scale: str = "stable", stable_gamma: int = 16
    ):
        if not isinstance(num_batches, int) or num_batches < 1:
            raise ConfigError(f"The adapter's `num_batches` must be a whole number from 1, found {num_batches!r}.")
        self.num_batches = num_batches
        for option, value, known in (("direction", direction, DIRECTIONS), ("scale", scale, SCALES)):
            if value not in known:
                raise ConfigError(f"The adapter's `{option}` must be one of {list(known)}, found {value!r}.")
        own = {"direction": direction, "scale": scale, "stable_gamma": stable_gamma}
        self.options = {"num_batches": num_batches, **own}
        self.config = LoraGAConfig(**own)

    def apply(self, model: nn.Module, plan: AdapterPlan, batches: Sequence[Batch] = ()) -> _offset.OffsetModel:
        """Start the factors at the gradient's decomposition. Linears without a gradient start as plain LoRA."""

        def train_step() -> None:
            model.eval()  # PEFT has put the frozen model, including its dropout, in training mode
            with warnings.catch_warnings():  # PEFT's hooks read gradients of outputs; pictures have none of their own
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                for batch in batches:
                    model(**batch).loss.backward()

        settings = {"init_lora_weights": "lora_ga", "lora_ga_config": self.config}
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
