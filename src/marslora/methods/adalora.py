"""LoRA as B E A with a diagonal E, whose least important entries are cut during training (AdaLoRA)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from peft import AdaLoraConfig, get_peft_model
from pydantic import Field
from torch import Tensor, nn
from torch.nn import Parameter

from marslora.core.errors import ConfigError
from marslora.core.patterns import lora_config_dict
from marslora.core.seeds import derive
from marslora.methods import _plain_folder
from marslora.methods._base import AbstractMethod, AdapterPlan, Batch, LowRank, StepInfo
from marslora.methods._peft_change import ADAPTER, PeftChange

_SCORES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""Dictionaries of PEFT's allocator that a continued run needs."""


class AdaLora(AbstractMethod):
    """AdaLoRA (Zhang et al. 2023, arXiv 2303.10512), as implemented by PEFT, with two common mistakes avoided.

    PEFT cuts ranks only if its allocator is called after every optimizer step, which `Trainer` does not do, and adds
    its orthogonality loss only for models that compute their own loss. Here both always happen.

    The allocation's ranks are the budget: their sum is the sum of the ranks that remain at the end. Every linear starts
    with ``init_factor`` times their mean, whatever its part.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractMethod.Config):
        """The size at the start, when ranks are cut, and how importance is measured."""

        init_factor: Annotated[float, Field(gt=1)] = 1.5
        """The rank at which every linear starts, over the mean rank of the allocation."""
        warm_share: Annotated[float, Field(ge=0)] = 0.1
        """The share of the steps before the first cut."""
        final_share: Annotated[float, Field(ge=0)] = 0.3
        """The share of the steps after the last cut."""
        interval: Annotated[int, Field(gt=0)] | None = None
        """Steps from one cut to the next; null: 50 cuts in a run."""
        beta1: Annotated[float, Field(gt=0, lt=1)] = 0.85
        """Decay of the running average of importance."""
        beta2: Annotated[float, Field(gt=0, lt=1)] = 0.85
        """Decay of the running average of the uncertainty of importance."""
        orth_reg_weight: Annotated[float, Field(ge=0)] = 0.5
        """Factor of the orthogonality loss."""

        def __post_init__(self) -> None:
            if self.warm_share + self.final_share >= 1:
                raise ConfigError(
                    "The adapter's `warm_share` and `final_share` must leave some steps between them, found "
                    f"{self.warm_share} and {self.final_share}. Lower one, so that their sum is below 1."
                )

    config: Config

    merges = "yes"
    serves = "any server of LoRA (vLLM up to rank 512); merged, any server"

    def apply(self, model: nn.Module, plan: AdapterPlan, batches: Sequence[Batch] = ()) -> AdaLoraChange:  # noqa: ARG002
        """Adapt the model with PEFT. The budget is the sum of the plan's ranks."""
        own, init_r, steps = self.config, self.init_rank(plan), plan.num_steps
        config = AdaLoraConfig(
            init_r=init_r,
            target_r=max(1, init_r - 1),
            total_step=steps,
            tinit=int(own.warm_share * steps),
            tfinal=int(own.final_share * steps),
            deltaT=own.interval or max(1, steps // 50),
            lora_alpha=plan.scale * init_r,
            lora_dropout=plan.dropout,
            target_modules=lora_config_dict(plan.ranks, plan.scale)["target_modules"],
            modules_to_save=list(plan.full_modules) or None,
            beta1=own.beta1,
            beta2=own.beta2,
            orth_reg_weight=own.orth_reg_weight,
        )
        return AdaLoraChange(model, plan, config)

    def init_rank(self, plan: AdapterPlan) -> int:
        """Return the rank at which every linear starts."""
        return math.ceil(self.config.init_factor * sum(plan.ranks.values()) / len(plan.ranks))

    def count(self, sizes: Mapping[str, tuple[int, int]], plan: AdapterPlan) -> int:
        """Count ``r (I + O + 1)`` for each linear at its initial rank r: what is trained, not what remains."""
        return sum(self.init_rank(plan) * (sum(sizes[path]) + 1) for path in plan.ranks)


class AdaLoraChange(PeftChange):
    """A model adapted by PEFT's AdaLoRA."""

    def __init__(self, base: Any, plan: AdapterPlan, config: AdaLoraConfig):
        whole = {path: base.get_submodule(path) for path in plan.full_modules}
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks for `is_gradient_checkpointing` by its old name
            torch.manual_seed(derive(plan.seed, "adalora"))
            super().__init__(base, get_peft_model(base, config), whole)
        self.plan, self.config = plan, config
        self.allocator = self.model.base_model.rankallocator
        self.allocator.target_bgt = sum(plan.ranks.values())  # PEFT itself only takes a whole mean rank

    def extra_loss(self) -> Tensor:
        """Return how far the rows of every A and the columns of every B are from orthonormal (equation 4)."""
        losses = []
        for _, _, role, factor, _ in self.trainables():
            if role in ("A", "B"):
                gram_RR = factor @ factor.T if role == "A" else factor.T @ factor
                losses.append((gram_RR - torch.eye(len(gram_RR), device=gram_RR.device)).norm())
        total: Tensor = self.config.orth_reg_weight * torch.stack(losses).mean()
        return total

    def after_step(self, info: StepInfo) -> None:
        """Score every direction, and at some steps cut the least important ones."""
        for _, _, role, parameter, _ in self.trainables():
            if role != "full" and parameter.grad is None:  # without a gradient its importance is zero
                parameter.grad = torch.zeros_like(parameter)
        self.model.base_model.update_and_allocate(info.step)

    def masks(self) -> dict[str, Tensor]:
        """Return, by path, which of the initial directions remain."""
        pattern = self.config.rank_pattern or {}
        return {
            path: torch.as_tensor(pattern.get(name, [True] * len(E_R1)), dtype=torch.bool, device=E_R1.device)
            for path, (name, E_R1) in self._diagonals().items()
        }

    def ranks(self) -> dict[str, int]:
        """Return, by path, how many directions remain."""
        return {path: int(mask.sum()) for path, mask in self.masks().items()}

    def save(self, folder: Path) -> None:
        """Write a plain LoRA folder for PEFT: E is multiplied into A, and directions that were cut are left out."""
        low_ranks = {}
        for path, mask_R in self.masks().items():
            layer: Any = self.base.get_submodule(path)
            A_RI = (layer.lora_A[ADAPTER] * layer.lora_E[ADAPTER]).detach()[mask_R]
            B_OR = layer.lora_B[ADAPTER].detach()[:, mask_R]
            rank = float(layer.ranknum[ADAPTER].detach())
            scale = layer.scaling[ADAPTER] / (rank + 1e-5)  # as in the forward of PEFT
            low_ranks[path] = LowRank(A_RI, B_OR, scale)
        whole = {each.name: each.parameter.detach() for each in self.trainables() if each.role == "full"}
        _plain_folder.write(folder, low_ranks, self.plan, whole, self.base)

    def extra_state(self) -> dict[str, Tensor]:
        """Return the allocator's running scores and what it has cut."""
        state = {f"mask.{path}": mask.to(torch.uint8) for path, mask in self.masks().items()}
        state["has_cut"] = torch.tensor(self.config.rank_pattern is not None)
        for score in _SCORES:
            state |= {f"{score}/{name}": tensor for name, tensor in getattr(self.allocator, score).items()}
        return state

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `extra_state` returned."""
        remaining = {name: state[f"mask.{path}"].bool().tolist() for path, (name, _) in self._diagonals().items()}
        self.config.rank_pattern = remaining if bool(state["has_cut"]) else None
        devices = {name: parameter.device for name, parameter in self._named_parameters()}
        for score in _SCORES:
            stored = {key.partition("/")[2]: tensor for key, tensor in state.items() if key.startswith(f"{score}/")}
            setattr(self.allocator, score, {name: tensor.to(devices[name]) for name, tensor in stored.items()})

    def _named_parameters(self) -> list[tuple[str, Parameter]]:
        """Return the parameters under the names that the allocator uses."""
        return list(self.model.base_model.model.named_parameters())

    def _diagonals(self) -> dict[str, tuple[str, Parameter]]:
        """Return, by path, the diagonal E with its name."""
        tail = f".lora_E.{ADAPTER}"
        return {name.removesuffix(tail): (name, E_R1) for name, E_R1 in self._named_parameters() if name.endswith(tail)}
